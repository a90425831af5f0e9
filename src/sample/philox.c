/* SPDX-License-Identifier: Apache-2.0 */
#include "sample/philox.h"

enum { ROUNDS = 10 };

/* Multipliers and key increments (golden ratio, sqrt(3) - 1) of the paper, section 3.4. */
#define MULTIPLIER_0 0xD2511F53u
#define MULTIPLIER_1 0xCD9E8D57u
#define INCREMENT_0  0x9E3779B9u
#define INCREMENT_1  0xBB67AE85u

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t ret_out[4])
{
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]};
    uint32_t k[2] = {key[0], key[1]};

    for (int round = 0; round < ROUNDS; round++) {
        uint64_t a = (uint64_t)MULTIPLIER_0 * c[0];
        uint64_t b = (uint64_t)MULTIPLIER_1 * c[2];

        c[0] = (uint32_t)(b >> 32) ^ c[1] ^ k[0];
        c[1] = (uint32_t)b;
        c[2] = (uint32_t)(a >> 32) ^ c[3] ^ k[1];
        c[3] = (uint32_t)a;
        k[0] += INCREMENT_0;
        k[1] += INCREMENT_1;
    }
    memcpy(ret_out, c, sizeof(c));
}

double sample_uniform(const struct sample_key *key)
{
    const uint32_t counter[4] = {key->draw, key->position, key->choice, key->prompt};
    const uint32_t seed[2] = {(uint32_t)key->seed, (uint32_t)(key->seed >> 32)};
    uint32_t out[4];

    philox4x32(counter, seed, out);
    return (double)((uint64_t)out[0] << 20 | out[1] >> 12) * 0x1p-52;
}
