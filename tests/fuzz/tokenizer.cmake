# SPDX-License-Identifier: Apache-2.0
lockstep_fuzz(tokenizer tests/fuzz/fuzz_tokenizer.c tests/fuzz/corpus/tokenizer DEPS tokenizer)
