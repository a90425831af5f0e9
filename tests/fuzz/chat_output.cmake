# SPDX-License-Identifier: Apache-2.0
lockstep_fuzz(chat_output tests/fuzz/fuzz_output.c tests/fuzz/corpus/chat_output DEPS chat)
lockstep_fuzz(chat_stop tests/fuzz/fuzz_stop.c tests/fuzz/corpus/chat_stop DEPS chat)
