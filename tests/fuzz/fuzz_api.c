/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of messages, responses and chat: whatever they hold, a conversation or an error that names
 * its member. */
#include <stdint.h>
#include <stdlib.h>

#include "api/chat.h"
#include "api/messages.h"
#include "api/responses.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok, const struct api_error *error)
{
    if (ok != (error->status == 0) || (!ok && (error->status != 400 || error->param[0] == '\0'))) {
        abort();
    }
}

static void to_chat(const json_t *json)
{
    struct api_error error = {0};
    struct chat_body body = {0};

    check(chat_body_parse(&body, json, &error), &error);
    chat_body_release(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct api_error error = {0};
    json_t *json = NULL;
    json_t *chat = NULL;

    if (json_parse((const char *)data, size, &json, NULL) != STATUS_OK || !json_is_object(json)) {
        json_decref(json);
        return 0;
    }
    to_chat(json);
    check(messages_translate(json, &chat, &error), &error);
    if (chat != NULL) {
        to_chat(chat);
        json_decref(chat);
        chat = NULL;
    }
    error = (struct api_error){0};
    check(responses_translate(json, &chat, &error), &error);
    if (chat != NULL) {
        to_chat(chat);
        json_decref(chat);
    }
    json_decref(json);
    return 0;
}
