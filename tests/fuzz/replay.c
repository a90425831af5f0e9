/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target over every file of a corpus folder, so that the ordinary suite replays what
 * the fuzzer has found. Usage: replay_NAME FOLDER. Fails if the folder is missing or empty.
 */
#include <dirent.h>
#include <limits.h>

#include "base/file.h"
#include "base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv)
{
    struct dirent *entry;
    size_t n = 0;
    DIR *dir;

    if (argc != 2 || (dir = opendir(argv[1])) == NULL) {
        fprintf(stderr, "usage: %s CORPUS_FOLDER\n", argv[0]);
        return 2;
    }
    while ((entry = readdir(dir)) != NULL) {
        char path[PATH_MAX];
        struct buf data = {0};
        struct err err = {0};
        uint8_t *copy;

        if (entry->d_name[0] == '.') {
            continue;
        }
        snprintf(path, sizeof(path), "%s/%s", argv[1], entry->d_name);
        if (file_read_all(path, SIZE_MAX / 4, &data, &err) != STATUS_OK) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
        /* of the exact size, so that a sanitizer sees a read past the end */
        copy = mem_alloc(data.len, 1);
        ENSURE(copy != NULL);
        memcpy(copy, buf_str(&data), data.len);
        LLVMFuzzerTestOneInput(copy, data.len);
        free(copy);
        buf_release(&data);
        n++;
    }
    closedir(dir);
    printf("%zu inputs\n", n);
    return n == 0;
}
