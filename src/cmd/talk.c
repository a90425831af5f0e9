/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/talk.h"

#include <errno.h>
#include <float.h>
#include <sys/random.h>

#include "base/log.h"
#include "cmd/open_chat.h"
#include "cmd/open_engine.h"
#include "cmd/open_tokenizer.h"

enum status talk_open_text(struct talk *talk, const struct options *options, struct err *err)
{
    enum status status = open_tokenizer(options->path, &talk->tokenizer, err);

    if (status != STATUS_OK) {
        return status;
    }
    status = open_chat(options->path, &talk->prompt, err);
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

/* What the user gave, else what the model names, else the option's fallback. */
static void choose_params(struct talk *talk, const struct options *o)
{
    const struct generation_defaults *d = engine_generation(talk->engine);
    struct sample_params *p = &talk->params;

    *p = d->params;
    if (o->given.temp || !d->has_temperature) {
        p->temperature = (float)o->temp;
    }
    if (o->given.top_k || !d->has_top_k) {
        p->top_k = (uint32_t)o->top_k;
    }
    if (o->given.top_p || !d->has_top_p) {
        p->top_p = (float)o->top_p;
    }
    if (o->given.min_p || !d->has_min_p) {
        p->min_p = (float)o->min_p;
    }
    if (o->given.repetition_penalty || !d->has_repetition_penalty) {
        p->repetition_penalty = (float)o->repetition_penalty;
    }
    p->presence_penalty = (float)o->presence_penalty;
    p->frequency_penalty = (float)o->frequency_penalty;
    p->top_p = p->top_p > 0.0f ? p->top_p : FLT_MIN; /* 0: the likeliest alone */
}

static enum status choose_seed(struct talk *talk, const struct options *options, struct err *err)
{
    if (options->given.seed) {
        talk->seed = (uint64_t)options->seed;
        return STATUS_OK;
    }
    if (getrandom(&talk->seed, sizeof(talk->seed), 0) != sizeof(talk->seed)) {
        return err_set(err, STATUS_IO, "no random seed: %s", strerror(errno));
    }
    talk->seed &= INT64_MAX; /* what --seed accepts */
    return STATUS_OK;
}

enum status talk_open_engine(struct talk *talk, const struct options *options, uint32_t max_context,
                             struct err *err)
{
    const struct open_engine want = {.max_context = max_context,
                                     .max_chunk = (uint32_t)options->chunk};
    enum status status = open_engine(options, &want, &talk->engine, &talk->load_seconds, err);

    if (status != STATUS_OK) {
        return status;
    }
    talk->options = options;
    sequence_init(&talk->sequence, talk->engine);
    choose_params(talk, options);
    talk->ends = *engine_generation(talk->engine);
    if (talk->tokenizer != NULL) {
        generation_add_end(&talk->ends, tokenizer_eos(talk->tokenizer));
    }
    return choose_seed(talk, options, err);
}

void talk_release(struct talk *talk)
{
    if (talk->engine != NULL) {
        sequence_release(&talk->sequence);
    }
    engine_destroy(&talk->engine);
    chat_prompt_destroy(&talk->prompt);
    tokenizer_destroy(&talk->tokenizer);
}

enum status talk_encode_messages(struct talk *talk, json_t *messages, struct token_ids *ids,
                                 struct err *err)
{
    json_t *request = json_pack("{s:O}", "messages", messages);
    struct buf text = {0};
    struct buf message = {0};
    enum status status;

    ENSURE(request != NULL);
    status = chat_prompt_render(talk->prompt, request, &text, &message);
    if (status != STATUS_OK) {
        err_set(err, status, "chat template: %s", buf_str(&message));
    } else {
        status = tokenizer_encode(talk->tokenizer, buf_str(&text), text.len,
                                  TOKENIZER_PARSE_SPECIAL, ids, err);
    }
    json_decref(request);
    buf_release(&text);
    buf_release(&message);
    return status;
}

/* Where generated tokens go. */
struct output {
    struct talk *talk;
    struct token_ids *ids;
    struct buf *answer;
    struct detok detok;
    struct buf piece;
    uint32_t n;
};

static enum status write_piece(struct output *out, struct err *err)
{
    if (out->answer != NULL) {
        buf_append(out->answer, buf_str(&out->piece), out->piece.len);
    }
    if (fwrite(buf_str(&out->piece), 1, out->piece.len, stdout) != out->piece.len ||
        fflush(stdout) != 0) {
        return err_set(err, STATUS_IO, "standard output: %s", strerror(errno));
    }
    buf_clear(&out->piece);
    return STATUS_OK;
}

static enum status take_token(void *arg, int32_t token, struct err *err)
{
    struct output *out = arg;
    enum status status = token_ids_push(out->ids, token);

    if (status != STATUS_OK) {
        return err_set(err, status, "no memory for the answer's tokens");
    }
    if (out->talk->options->ids) {
        buf_printf(&out->piece, "%s%d", out->n > 0 ? " " : "", token);
    } else {
        detok_push(&out->detok, token, &out->piece);
    }
    out->n++;
    return write_piece(out, err);
}

enum status talk_answer(struct talk *talk, struct token_ids *ids, struct buf *answer,
                        struct generate_result *ret_result, struct err *err)
{
    struct output out = {.talk = talk, .ids = ids, .answer = answer};
    struct token_ids prompt = {0}; /* ids grows while the prompt must stay in place */
    enum status status = STATUS_OK;

    for (size_t i = 0; i < ids->n && status == STATUS_OK; i++) {
        status = token_ids_push(&prompt, ids->data[i]);
    }
    if (status != STATUS_OK) {
        token_ids_release(&prompt);
        return err_set(err, status, "no memory for the prompt's tokens");
    }
    detok_init(&out.detok, talk->tokenizer, TOKENIZER_SKIP_SPECIAL);
    status = generate(
        &(struct generate_args){
            .sequence = &talk->sequence,
            .prompt = prompt.data,
            .n_prompt = (uint32_t)prompt.n,
            .params = &talk->params,
            .ends = &talk->ends,
            .seed = talk->seed,
            .max_tokens = talk->options->max_tokens,
            .chunk = (uint32_t)talk->options->chunk,
            .token = take_token,
            .arg = &out,
            .stop = talk->stop,
        },
        ret_result, err);
    if (status == STATUS_OK) {
        if (!talk->options->ids) {
            detok_flush(&out.detok, &out.piece);
        }
        status = write_piece(&out, err);
    }
    buf_release(&out.piece);
    token_ids_release(&prompt);
    return status;
}

static double rate(uint32_t n, uint64_t ns)
{
    return ns > 0 ? n / ((double)ns * 1e-9) : 0;
}

void talk_print_statistics(const struct talk *talk, const struct generate_result *result)
{
    uint32_t decoded = result->n_generated > 0 ? result->n_generated - 1 : 0;

    log_info(
        "load %.2f s; prompt %u tokens, %.1f tokens/s; answer %u tokens, %.1f tokens/s; seed %llu",
        talk->load_seconds, result->n_prompt, rate(result->n_prompt, result->prefill_ns),
        result->n_generated, rate(decoded, result->decode_ns), (unsigned long long)talk->seed);
}
