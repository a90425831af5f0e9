# SPDX-License-Identifier: Apache-2.0
lockstep_fuzz(safetensors tests/fuzz/fuzz_safetensors.c tests/fuzz/corpus/safetensors DEPS weights)
lockstep_fuzz(gguf tests/fuzz/fuzz_gguf.c tests/fuzz/corpus/gguf DEPS weights)
