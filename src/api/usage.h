/* SPDX-License-Identifier: Apache-2.0 */
/* What a request has used, as OpenAI's bodies say it. Private to api/. */
#pragma once

#include "api/generate.h"

void usage_write_openai(struct buf *out, const struct request_usage *usage);

/* The frame of an error in a stream of OpenAI's, and the stream's end. */
void format_fail_openai(struct generation *g, const struct api_error *error, struct buf *out);
