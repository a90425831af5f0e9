/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/npy.h"

#include <errno.h>
#include <unistd.h>

enum { HEADER_BYTES = 128 }; /* magic, version, length and text: a multiple of 64 */

enum status npy_create(struct npy *npy, const char *path, uint64_t rows, uint64_t cols,
                       struct err *err)
{
    char header[HEADER_BYTES];
    int n;

    *npy = (struct npy){.path = path, .rows = rows, .cols = cols};
    npy->file = fopen(path, "wbe");
    if (npy->file == NULL) {
        return err_set(err, STATUS_IO, "%s: %s", path, strerror(errno));
    }
    memset(header, ' ', sizeof(header));
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    header[8] = (char)(HEADER_BYTES - 10);
    header[9] = 0;
    n = snprintf(header + 10, HEADER_BYTES - 10,
                 "{'descr': '<f4', 'fortran_order': False, 'shape': (%llu, %llu), }",
                 (unsigned long long)rows, (unsigned long long)cols);
    header[10 + n] = ' ';
    header[HEADER_BYTES - 1] = '\n';
    if (fwrite(header, 1, sizeof(header), npy->file) != sizeof(header)) {
        return err_set(err, STATUS_IO, "%s: %s", path, strerror(errno));
    }
    return STATUS_OK;
}

enum status npy_write_row(struct npy *npy, const float *row, struct err *err)
{
    ENSURE_OP(npy->written, <, npy->rows);
    for (uint64_t i = 0; i < npy->cols; i += 1024) {
        unsigned char bytes[1024 * 4];
        size_t n = (size_t)MIN(1024, npy->cols - i);

        for (size_t j = 0; j < n; j++) {
            uint32_t word;

            memcpy(&word, &row[i + j], sizeof(word));
            if ((word & 0x7fffffff) > 0x7f800000) {
                word = 0x7fc00000;
            }
            for (unsigned b = 0; b < 4; b++) {
                bytes[j * 4 + b] = (unsigned char)(word >> (8 * b));
            }
        }
        if (fwrite(bytes, 4, n, npy->file) != n) {
            return err_set(err, STATUS_IO, "%s: %s", npy->path, strerror(errno));
        }
    }
    npy->written++;
    return STATUS_OK;
}

enum status npy_close(struct npy *npy, bool ok, struct err *err)
{
    enum status status = STATUS_OK;

    if (npy->file == NULL) {
        return STATUS_OK;
    }
    if (fclose(npy->file) != 0) {
        status = err_set(err, STATUS_IO, "%s: %s", npy->path, strerror(errno));
    }
    if (!ok || status != STATUS_OK || npy->written != npy->rows) {
        unlink(npy->path);
    }
    npy->file = NULL;
    return status;
}
