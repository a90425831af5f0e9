# SPDX-License-Identifier: Apache-2.0
lockstep_fuzz(config tests/fuzz/fuzz_config.c tests/fuzz/corpus/config DEPS model)
