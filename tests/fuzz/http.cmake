# SPDX-License-Identifier: Apache-2.0
lockstep_fuzz(http tests/fuzz/fuzz_http.c tests/fuzz/corpus/http DEPS http)
