/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles. One that is in use by an operation is held by a reference, so that its owner may give it
 * up at any time. Everything but the count of references is constant. Any thread.
 */
#pragma once

#include "lib/device.h"

struct lockstep_tensor {
    _Atomic uint32_t refs;
    struct lockstep_device *device; /* a reference */
    struct lockstep_tensor *whole;  /* of a slice: a reference; NULL otherwise */
    struct memory *memory;          /* NULL: borrowed, or a slice */
    struct memory_block block;
    uint64_t generation;
    enum lockstep_type type;
    size_t count;
    struct work_span span;
    bool owned;
};

struct lockstep_tensor *tensor_ref(struct lockstep_tensor *tensor);
void tensor_unref(struct lockstep_tensor **tensor);

size_t tensor_bytes(const struct lockstep_tensor *tensor);

/* Whether they share memory in another way than being the same elements. */
bool tensor_overlaps(const struct lockstep_tensor *a, const struct lockstep_tensor *b);

/* LOCKSTEP_STALE if the context that it was made in is not the one that is up; who: "rank 1: " */
enum lockstep_status tensor_check_fresh(const struct lockstep_tensor *tensor, const char *who,
                                        struct lockstep_error *error);
