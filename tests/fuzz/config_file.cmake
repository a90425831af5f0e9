# SPDX-License-Identifier: Apache-2.0
lockstep_fuzz(config_file tests/fuzz/fuzz_config_file.c tests/fuzz/corpus/config_file DEPS config)
