# SPDX-License-Identifier: Apache-2.0
lockstep_fuzz(api tests/fuzz/fuzz_api.c tests/fuzz/corpus/api DEPS api)
if(CMOCKA_FOUND) # the tokenizer's fixture
  lockstep_fuzz(api_body tests/fuzz/fuzz_api_body.c tests/fuzz/corpus/api_body DEPS api PkgConfig::CMOCKA)
endif()
