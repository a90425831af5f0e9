/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stop strings, each ended by a zero byte, an empty one ends them; what follows is the text. The
 * first byte says how it is cut, whether the stop string is released, and whether they count only
 * behind a third of the text. What comes out must be the text up to the first stop string that a
 * search finds.
 */
#include "chat/stop.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct stops {
    const char *texts[STOP_MAX];
    size_t n;
};

static int search(const struct stops *stops, const char *text, size_t n, size_t passed,
                  size_t *ret_end)
{
    int found = -1;

    for (size_t end = passed + 1; end <= n && found < 0; end++) {
        for (size_t i = 0; i < stops->n; i++) {
            size_t len = strlen(stops->texts[i]);

            if (len <= end && memcmp(text + end - len, stops->texts[i], len) == 0 &&
                (found < 0 || len > strlen(stops->texts[found]))) {
                found = (int)i;
                *ret_end = end;
            }
        }
    }
    return found;
}

static void check(struct stop_matcher *matcher, const struct stops *stops, uint8_t mode,
                  const char *text, size_t n)
{
    bool include_stop = (mode & 1) != 0;
    size_t step = (mode >> 1) % 16u + 1;
    struct buf out = {0};
    size_t passed = (mode & 32) != 0 ? n / 3 : 0;
    size_t end = n;
    int found = search(stops, text, n, passed, &end);

    for (size_t at = 0; at < passed; at += step) {
        stop_matcher_pass(matcher, text + at, MIN(step, passed - at), &out);
    }
    for (size_t at = passed; at < n; at += step) {
        stop_matcher_push(matcher, text + at, MIN(step, n - at), &out);
    }
    stop_matcher_finish(matcher, &out);
    if (found >= 0 && !include_stop) {
        end -= strlen(stops->texts[found]);
    }
    ENSURE_OP(stop_matcher_matched(matcher), ==, found);
    ENSURE_OP(out.len, ==, end);
    ENSURE(memcmp(buf_str(&out), n > 0 ? text : "", end) == 0);
    buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct stops stops = {0};
    struct stop_matcher *matcher;
    const char *text = (const char *)data;
    uint8_t mode;

    if (size < 1 || size > 4096) {
        return 0;
    }
    mode = data[0];
    text++;
    size--;
    matcher = stop_matcher_create((mode & 1) != 0);
    while (size > 0) {
        size_t len = strnlen(text, size);
        const char *stop = text;

        if (len == size) {
            break;
        }
        text += len + 1;
        size -= len + 1;
        if (stop_matcher_add(matcher, stop, len, NULL) == STATUS_OK) {
            stops.texts[stops.n++] = stop;
        } else if (len == 0) {
            break;
        }
    }
    check(matcher, &stops, mode, text, size);
    stop_matcher_destroy(&matcher);
    return 0;
}
