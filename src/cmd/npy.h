/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a NumPy file (format version 1.0) of little-endian float32 in C order, shape [rows,
 * cols], row by row. The same values give the same bytes, but that every NaN is written as the
 * quiet NaN. One thread.
 */
#pragma once

#include "base/err.h"

struct npy {
    const char *path; /* borrowed */
    FILE *file;
    uint64_t rows;
    uint64_t cols;
    uint64_t written; /* rows so far */
};

NODISCARD enum status npy_create(struct npy *npy, const char *path, uint64_t rows, uint64_t cols,
                                 struct err *err);
NODISCARD enum status npy_write_row(struct npy *npy, const float *row, struct err *err);

/* Closes the file; it is removed unless all rows were written and ok is true. Accepts a zeroed npy.
 */
NODISCARD enum status npy_close(struct npy *npy, bool ok, struct err *err);
