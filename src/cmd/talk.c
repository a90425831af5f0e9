/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/talk.h"

#include <errno.h>
#include <float.h>
#include <signal.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "cmd/open_chat.h"
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
    const struct generation_defaults *d = &talk->service.generation;
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

enum status talk_open_world(struct talk *talk, const struct options *options, uint32_t max_context,
                            struct err *err)
{
    const struct service_want want = {.max_context = max_context, .n_slots = 1};
    enum status status = service_open(&talk->service, options, &want, err);

    if (status != STATUS_OK) {
        return status;
    }
    talk->options = options;
    choose_params(talk, options);
    talk->ends = talk->service.generation;
    if (talk->tokenizer != NULL) {
        generation_add_end(&talk->ends, tokenizer_eos(talk->tokenizer));
    }
    return choose_seed(talk, options, err);
}

void talk_release(struct talk *talk)
{
    service_close(&talk->service);
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

/* Where generated tokens go, and how the answer ended. */
struct output {
    struct talk *talk;
    struct token_ids *ids;
    struct buf *answer;
    struct detok detok;
    struct buf piece;
    uint64_t first_ns; /* when the first token came */
    uint32_t n;
    uint32_t n_cached; /* of the prompt */
    bool over;
    enum batch_end finish;
    struct err err; /* of the answer, or of writing it */
};

static bool write_piece(struct output *out)
{
    if (out->answer != NULL) {
        buf_append(out->answer, buf_str(&out->piece), out->piece.len);
    }
    if (fwrite(buf_str(&out->piece), 1, out->piece.len, stdout) != out->piece.len ||
        fflush(stdout) != 0) {
        if (errno == EPIPE) { /* whoever read has seen enough: end as other filters do */
            out->talk->service.caught_signal = SIGPIPE;
        }
        err_set(&out->err, STATUS_IO, "standard output: %s", strerror(errno));
        return false;
    }
    buf_clear(&out->piece);
    return true;
}

static void take_start(void *arg, uint32_t n_cached)
{
    struct output *out = arg;

    out->n_cached = n_cached;
}

static bool take_token(void *arg, const struct batch_token *token)
{
    struct output *out = arg;

    out->first_ns = out->first_ns == 0 ? clock_ns() : out->first_ns;
    if (generation_is_end(&out->talk->ends, token->token)) {
        return false;
    }
    if (token_ids_push(out->ids, token->token) != STATUS_OK) {
        err_set(&out->err, STATUS_NO_MEMORY, "no memory for the answer's tokens");
        return false;
    }
    if (out->talk->options->ids) {
        buf_printf(&out->piece, "%s%d", out->n > 0 ? " " : "", token->token);
    } else {
        detok_push(&out->detok, token->token, &out->piece);
    }
    out->n++;
    return write_piece(out);
}

static void take_end(void *arg, enum batch_end end, enum status status, const char *why)
{
    struct output *out = arg;

    out->over = true;
    out->finish = end;
    if (end == BATCH_FAILED) {
        err_set(&out->err, status, "%s", why);
    }
}

static struct plan_params plan_params_of(const struct talk *talk)
{
    const struct sample_params *p = &talk->params;

    return (struct plan_params){
        .seed = talk->seed,
        .temperature = p->temperature,
        .top_k = p->top_k,
        .top_p = p->top_p,
        .min_p = p->min_p,
        .repetition_penalty = p->repetition_penalty,
        .presence_penalty = p->presence_penalty,
        .frequency_penalty = p->frequency_penalty,
    };
}

/* Turns the world until the answer is over. */
static enum status drive(struct talk *talk, struct output *out, uint64_t id, struct err *err)
{
    enum { LOOK_MS = 50 }; /* how late stop may be noticed */

    while (!out->over) {
        uint64_t deadline =
            talk->stop == NULL ? UINT64_MAX : clock_ns() + (uint64_t)LOOK_MS * 1000000;
        enum status status = service_turn(&talk->service, deadline, err);

        if (status != STATUS_OK && !out->over) {
            batch_cancel(talk->service.batch, id);
            return status;
        }
        if (talk->stop != NULL && *talk->stop && !out->over) {
            batch_cancel(talk->service.batch, id);
        }
    }
    if (out->err.status != STATUS_OK && err != NULL) {
        *err = out->err;
    }
    return out->err.status;
}

enum status talk_answer(struct talk *talk, struct token_ids *ids, struct buf *answer,
                        struct talk_result *ret_result, struct err *err)
{
    struct output out = {.talk = talk, .ids = ids, .answer = answer};
    const struct batch_request request = {
        .params = plan_params_of(talk),
        .prompt = ids->data,
        .n_prompt = (uint32_t)ids->n,
        .max_generated =
            talk->options->max_tokens < 0 ? UINT32_MAX : (uint32_t)talk->options->max_tokens,
        .started = take_start,
        .token = take_token,
        .end = take_end,
        .arg = &out,
    };
    struct talk_result result = {.finish = BATCH_LENGTH};
    uint64_t start = clock_ns();
    uint64_t id;
    enum status status = sample_params_check(&talk->params, talk->service.config.vocab, err);

    if (status != STATUS_OK || request.max_generated == 0) {
        *ret_result = result;
        return status;
    }
    detok_init(&out.detok, talk->tokenizer, TOKENIZER_SKIP_SPECIAL);
    status = batch_add(talk->service.batch, &request, &id, err);
    if (status == STATUS_OK) {
        status = drive(talk, &out, id, err);
    }
    if (status == STATUS_OK) {
        if (!talk->options->ids) {
            detok_flush(&out.detok, &out.piece);
        }
        if (!write_piece(&out)) {
            status = out.err.status;
            *err = out.err;
        }
    }
    result.finish = out.finish;
    result.n_prompt = request.n_prompt - out.n_cached;
    result.n_generated = out.n;
    result.prefill_ns = out.first_ns == 0 ? 0 : out.first_ns - start;
    result.decode_ns = out.first_ns == 0 ? 0 : clock_ns() - out.first_ns;
    *ret_result = result;
    buf_release(&out.piece);
    return status;
}

static double rate(uint32_t n, uint64_t ns)
{
    return ns > 0 ? n / ((double)ns * 1e-9) : 0;
}

void talk_print_statistics(const struct talk *talk, const struct talk_result *result)
{
    uint32_t decoded = result->n_generated > 0 ? result->n_generated - 1 : 0;

    log_info(
        "load %.2f s; prompt %u tokens, %.1f tokens/s; answer %u tokens, %.1f tokens/s; seed %llu",
        talk->service.load_seconds, result->n_prompt, rate(result->n_prompt, result->prefill_ns),
        result->n_generated, rate(decoded, result->decode_ns), (unsigned long long)talk->seed);
}
