/* SPDX-License-Identifier: Apache-2.0 */
/* What the arithmetic of a model is chosen by: the types of activations and of the KV cache. */
#pragma once

#include "base/base.h"

/* Rounding of what enters a product with weights. ACT_F32: none. ACT_BF16: rounded to bf16 (nearest
 * even); needs bf16 weights. ACT_INT8: inputs of products with quantised weights become integers
 * (tensor/quant.h), with bf16 weights they are rounded to bf16, with others not at all. */
enum act { ACT_F32, ACT_BF16, ACT_INT8, ACT_COUNT };

static const char *const act_names[ACT_COUNT] = {"f32", "bf16", "int8"};

static inline const char *act_name(enum act act)
{
    return act_names[act];
}

/* False if no act has that name. */
static inline bool act_from_name(const char *name, enum act *ret_act)
{
    for (unsigned i = 0; i < ACT_COUNT; i++) {
        if (strcmp(name, act_names[i]) == 0) {
            *ret_act = (enum act)i;
            return true;
        }
    }
    return false;
}

/* What the KV cache holds, and with it the arithmetic of attention, which no act changes. KV_F32:
 * nothing is rounded. KV_BF16: q, k, v and attention weights are rounded to bf16. KV_INT8: q, k and
 * v become integers of 8 bits with a scale for each 32 dimensions of a head (cpu/kernels.h says
 * how). */
enum kv_type { KV_F32, KV_BF16, KV_INT8, KV_TYPE_COUNT };

static const char *const kv_type_names[KV_TYPE_COUNT] = {"f32", "bf16", "int8"};

static inline const char *kv_type_name(enum kv_type type)
{
    return kv_type_names[type];
}

/* The one that goes with act where nobody chooses. */
static inline enum kv_type act_kv_type(enum act act)
{
    return act == ACT_F32 ? KV_F32 : KV_BF16;
}

/* False if no type has that name. */
static inline bool kv_type_from_name(const char *name, enum kv_type *ret_type)
{
    for (unsigned i = 0; i < KV_TYPE_COUNT; i++) {
        if (strcmp(name, kv_type_names[i]) == 0) {
            *ret_type = (enum kv_type)i;
            return true;
        }
    }
    return false;
}
