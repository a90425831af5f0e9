/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions nobody may call here: each has a successor that knows the size of its output or reports
 * bad input. The system headers come first, so that their own declarations stay legal.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#undef strcpy
#undef strcat
#undef strncpy
#undef strncat
#undef sprintf
#undef vsprintf
#undef strtok
#undef atoi
#undef atol
#undef atoll
#undef atof
#undef alloca
#pragma GCC poison strcpy strcat strncpy strncat sprintf vsprintf strtok atoi atol atoll atof gets \
    alloca
