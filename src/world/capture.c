/* SPDX-License-Identifier: Apache-2.0 */
#include "world/capture.h"

#define LINE_NS  (1000000000ull / CAPTURE_PER_SECOND)
#define BURST_NS (CAPTURE_BURST * LINE_NS)

void capture_init(struct capture *capture, capture_line_fn *emit, void *arg)
{
    *capture = (struct capture){.emit = emit, .arg = arg, .tokens_ns = BURST_NS};
}

static void say_dropped(struct capture *capture)
{
    char text[64];

    if (capture->n_dropped == 0) {
        return;
    }
    snprintf(text, sizeof(text), "(lines dropped: %llu)", (unsigned long long)capture->n_dropped);
    capture->n_dropped = 0;
    capture->emit(capture->arg, text);
}

/* Gives out what there is of a line, or counts it. */
static void end_line(struct capture *capture, uint64_t now)
{
    uint64_t elapsed = now > capture->refilled_at ? now - capture->refilled_at : 0;

    capture->tokens_ns = MIN(capture->tokens_ns + MIN(elapsed, BURST_NS), BURST_NS);
    capture->refilled_at = MAX(now, capture->refilled_at);
    if (capture->tokens_ns < LINE_NS) {
        capture->n_dropped++;
    } else {
        capture->tokens_ns -= LINE_NS;
        say_dropped(capture);
        capture->line[capture->len] = '\0';
        capture->emit(capture->arg, capture->line);
    }
    capture->len = 0;
    capture->pending = false;
}

static void add_byte(struct capture *capture, char byte, uint64_t now)
{
    const char *text = byte == '\0' ? "\\x00" : &byte;
    size_t n = byte == '\0' ? 4 : 1;

    if (capture->len + n > CAPTURE_LINE_BYTES) {
        end_line(capture, now);
        capture->skipping = true;
        return;
    }
    if (!capture->pending) {
        capture->pending = true;
        capture->since = now;
    }
    memcpy(capture->line + capture->len, text, n);
    capture->len += n;
}

void capture_feed(struct capture *capture, const char *bytes, size_t n, uint64_t now)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '\n' && capture->skipping) {
            capture->skipping = false;
        } else if (bytes[i] == '\n') {
            end_line(capture, now);
        } else if (!capture->skipping) {
            add_byte(capture, bytes[i], now);
        }
    }
}

uint64_t capture_wake_at(const struct capture *capture)
{
    return capture->pending ? capture->since + CAPTURE_PATIENCE_MS * 1000000ull : UINT64_MAX;
}

void capture_flush(struct capture *capture, uint64_t now, bool ended)
{
    if (capture->pending && (ended || now >= capture_wake_at(capture))) {
        end_line(capture, now);
    }
    if (ended) {
        say_dropped(capture);
    }
}
