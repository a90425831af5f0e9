/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a function that can fail returns: 0 is done, negative is an error, positive only "in
 * progress". The list is status.def, which also gives each its name.
 */
#pragma once

#include "base/base.h"

enum status {
#define STATUS(name, value, text) STATUS_##name = value,
#include "base/status.def"
#undef STATUS
};

/* A short static text, for example "corrupt"; never NULL. */
const char *status_text(enum status status);
