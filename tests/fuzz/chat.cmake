# SPDX-License-Identifier: Apache-2.0
lockstep_fuzz(template tests/fuzz/fuzz_template.c tests/fuzz/corpus/template DEPS chat)
