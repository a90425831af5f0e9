/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a KV page lies in memory; private to cpu/. A page holds 64 positions: for each layer, for
 * each KV head, K then V, as struct cpu_attn_block has them (cpu/kernels.h), each beginning at a
 * cache line. Pure.
 */
#pragma once

#include "cpu/kernels.h"

enum { KV_PAGE_KEYS = OPS_PAGE_TOKENS };

/* Of one layer and head. */
struct kv_layout {
    struct packed keys;   /* without storage */
    struct packed values; /* likewise; unused for KV_INT8 */
    size_t v_offset;      /* of V behind K */
    size_t head_bytes;
};

struct kv_layout kv_layout_of(const struct ops_kv *kv);

/* The K of KV head `head` of a layer. */
static inline uint8_t *kv_page_head(const struct ops_kv *kv, const struct kv_layout *layout,
                                    uint32_t page, uint32_t layer, uint32_t head)
{
    return (uint8_t *)kv->pages + (size_t)page * kv->page_bytes +
           ((size_t)layer * kv->n_kv_heads + head) * layout->head_bytes;
}
