/* SPDX-License-Identifier: Apache-2.0 */
#include "base/process.h"

#include <stdio.h>

bool process_is_stopped(pid_t process)
{
    char path[32];
    char line[512];
    const char *state;
    FILE *file;
    size_t n;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)process);
    file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    n = fread(line, 1, sizeof(line) - 1, file);
    fclose(file);
    line[n] = '\0';
    state = strrchr(line, ')'); /* its name may have anything in it */
    return state != NULL && strncmp(state, ") T", 3) == 0;
}
