/* SPDX-License-Identifier: Apache-2.0 */
#define PEAK_DOT "%{vex%} vpdpbusd %1, %1, %0"
#include "cpu/x86/peak_dot.h"

double cpu_peak_int8_avxvnni(uint32_t n)
{
    return peak_dot(n);
}
