/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of messages and responses in the terms of chat, and what is refused by which name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "api/chat.h"
#include "api/messages.h"
#include "api/responses.h"

typedef bool translate(const json_t *from, json_t **ret_chat, struct api_error *error);

static json_t *parse(const char *text)
{
    json_t *value = NULL;
    struct err err = {0};

    if (json_parse(text, strlen(text), &value, &err) != STATUS_OK) {
        fail_msg("%s: %s", err.text, text);
    }
    return value;
}

/* Single quotes stand for double ones. */
static json_t *quoted(const char *text)
{
    struct buf out = {0};
    json_t *value;

    for (; *text != '\0'; text++) {
        buf_append_char(&out, *text == '\'' ? '"' : *text);
    }
    value = parse(buf_str(&out));
    buf_release(&out);
    return value;
}

static void expect(translate *run, const char *body, const char *wanted)
{
    struct api_error error = {0};
    struct chat_body chat = {0};
    json_t *from = quoted(body);
    json_t *want = quoted(wanted);
    json_t *got = NULL;
    struct buf text = {0};
    bool equal;

    if (!run(from, &got, &error)) {
        fail_msg("%s: %s", body, error.message);
    }
    equal = json_equal(got, want);
    json_write(&text, got, &json_style_compact);
    if (!equal) {
        fail_msg("%s\n became %s", body, buf_str(&text));
    }
    assert_true(chat_body_parse(&chat, got, &error));
    chat_body_release(&chat);
    buf_release(&text);
    json_decref(from);
    json_decref(want);
    json_decref(got);
}

static void refuse(translate *run, const char *body, const char *param, const char *says)
{
    struct api_error error = {0};
    json_t *from = quoted(body);
    json_t *got = NULL;

    if (run(from, &got, &error)) {
        fail_msg("taken: %s", body);
    }
    assert_int_equal(error.status, 400);
    assert_string_equal(error.param, param);
    if (strstr(error.message, says) == NULL) {
        fail_msg("%s: \"%s\" does not say \"%s\"", body, error.message, says);
    }
    assert_null(got);
    json_decref(from);
}

static void test_messages(void **state)
{
    (void)state;
    expect(messages_translate,
           "{'system':[{'type':'text','text':'a'},{'type':'text','text':'b'}],"
           "'messages':[{'role':'user','content':'hi'}]}",
           "{'messages':[{'role':'system','content':'a\\nb'},{'role':'user','content':'hi'}],"
           "'chat_template_kwargs':{}}");
    expect(messages_translate,
           "{'messages':[{'role':'user','content':'q'},{'role':'assistant','content':["
           "{'type':'thinking','thinking':'hm','signature':''},{'type':'text','text':'so'},"
           "{'type':'tool_use','id':'t1','name':'f','input':{'x':1}}]},"
           "{'role':'user','content':[{'type':'tool_result','tool_use_id':'t1','content':"
           "[{'type':'text','text':'42'}]},{'type':'tool_result','tool_use_id':'t2'},"
           "{'type':'text','text':'go on'}]}]}",
           "{'messages':[{'role':'user','content':'q'},{'role':'assistant','content':'so',"
           "'reasoning_content':'hm','tool_calls':[{'id':'t1','type':'function','function':"
           "{'name':'f','arguments':{'x':1}}}]},{'role':'tool','tool_call_id':'t1','content':'42'},"
           "{'role':'tool','tool_call_id':'t2','content':''},{'role':'user','content':'go on'}],"
           "'chat_template_kwargs':{}}");
    expect(messages_translate,
           "{'messages':[{'role':'user','content':'q'},{'role':'assistant','content':'so'}]}",
           "{'messages':[{'role':'user','content':'q'},{'role':'assistant','content':'so'}],"
           "'continue_final_message':true,'chat_template_kwargs':{}}");
}

static void test_messages_tools(void **state)
{
    static const char tool[] = "'tools':[{'name':'f','description':'d','input_schema':{}}]";
    static const char function[] = "'tools':[{'type':'function','function':{'name':'f',"
                                   "'description':'d','parameters':{}}}]";
    static const char *const choices[][2] = {
        {"{'type':'auto'}", "'auto','parallel_tool_calls':true"},
        {"{'type':'none'}", "'none','parallel_tool_calls':true"},
        {"{'type':'any','disable_parallel_tool_use':true}",
         "'required','parallel_tool_calls':false"},
        {"{'type':'tool','name':'f'}",
         "{'type':'function','function':{'name':'f'}},'parallel_tool_calls':true"},
    };
    char body[512];
    char wanted[512];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(choices); i++) {
        snprintf(body, sizeof(body),
                 "{'messages':[{'role':'user','content':'q'}],%s,'tool_choice':%s,"
                 "'thinking':{'type':'%s'}}",
                 tool, choices[i][0], i == 0 ? "disabled" : "adaptive");
        snprintf(wanted, sizeof(wanted),
                 "{'messages':[{'role':'user','content':'q'}],%s,'tool_choice':%s,"
                 "'chat_template_kwargs':{'enable_thinking':%s}}",
                 function, choices[i][1], i == 0 ? "false" : "true");
        expect(messages_translate, body, wanted);
    }
}

static void test_messages_refused(void **state)
{
    static const char *const cases[][3] = {
        {"{}", "messages", "at least one"},
        {"{'messages':[5]}", "messages", "message 0"},
        {"{'messages':[{'role':'user'}]}", "messages", "message 0 has no content"},
        {"{'messages':[{'role':'user','content':5}]}", "messages", "message 0"},
        {"{'messages':[{'role':'user','content':[5]}]}", "messages", "no type"},
        {"{'messages':[{'role':'user','content':[{'type':'text'}]}]}", "messages", "no text"},
        {"{'messages':[{'role':'user','content':[{'type':'image'}]}]}", "messages", "image"},
        {"{'messages':[{'role':'assistant','content':[{'type':'tool_use'}]}]}", "messages", "name"},
        {"{'messages':[{'role':'assistant','content':[{'type':'tool_use','id':'a','name':'b',"
         "'input':[]}]}]}",
         "messages", "no object"},
        {"{'messages':[{'role':'user','content':'x'}],'system':5}", "system", "no text"},
        {"{'messages':[{'role':'user','content':'x'}],'tools':[{'name':'x'}]}", "tools", "schema"},
        {"{'messages':[{'role':'user','content':'x'}],'tools':[{'type':'bash_1','name':'x'}]}",
         "tools", "bash_1"},
        {"{'messages':[{'role':'user','content':'x'}],'tool_choice':'auto'}", "tool_choice",
         "object"},
        {"{'messages':[{'role':'user','content':'x'}],'tool_choice':{'type':'tool'}}",
         "tool_choice", "name"},
        {"{'messages':[{'role':'user','content':'x'}],'thinking':{}}", "thinking", "type"},
        {"{'messages':[{'role':'user','content':'x'}],'mcp_servers':[1]}", "mcp_servers",
         "not supported"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        refuse(messages_translate, cases[i][0], cases[i][1], cases[i][2]);
    }
}

static void test_responses(void **state)
{
    (void)state;
    expect(responses_translate, "{'input':'hi','instructions':'be','reasoning':{'effort':'none'}}",
           "{'messages':[{'role':'system','content':'be'},{'role':'user','content':'hi'}],"
           "'tools':[],'reasoning_effort':'none'}");
    expect(responses_translate,
           "{'input':[{'role':'user','content':[{'type':'input_text','text':'a'}]},"
           "{'type':'reasoning','summary':[]},"
           "{'type':'message','role':'assistant','content':[{'type':'output_text','text':'b'}]},"
           "{'type':'function_call','call_id':'c1','name':'f','arguments':'{}'},"
           "{'type':'function_call','call_id':'c2','name':'g','arguments':'x'},"
           "{'type':'function_call_output','call_id':'c1','output':'1'}]}",
           "{'messages':[{'role':'user','content':[{'type':'input_text','text':'a'}]},"
           "{'role':'assistant','content':[{'type':'output_text','text':'b'}],'tool_calls':["
           "{'id':'c1','type':'function','function':{'name':'f','arguments':'{}'}},"
           "{'id':'c2','type':'function','function':{'name':'g','arguments':'x'}}]},"
           "{'role':'tool','tool_call_id':'c1','content':'1'}],'tools':[]}");
    expect(responses_translate,
           "{'input':[{'type':'function_call','call_id':'c','name':'f','arguments':''}],"
           "'tools':[{'type':'function','name':'f','strict':true}],'parallel_tool_calls':false,"
           "'tool_choice':{'type':'allowed_tools','mode':'required','tools':["
           "{'type':'function','name':'f'}]}}",
           "{'messages':[{'role':'assistant','content':null,'tool_calls':[{'id':'c',"
           "'type':'function','function':{'name':'f','arguments':''}}]}],"
           "'tools':[{'type':'function','function':{'name':'f'}}],'parallel_tool_calls':false,"
           "'tool_choice':{'type':'allowed_tools','allowed_tools':{'mode':'required','tools':["
           "{'type':'function','function':{'name':'f'}}]}}}");
}

static void test_responses_refused(void **state)
{
    static const char *const cases[][3] = {
        {"{}", "input", "must be"},
        {"{'input':[]}", "input", "must be"},
        {"{'input':5}", "input", "must be"},
        {"{'input':[{'type':'reasoning'}]}", "input", "nothing"},
        {"{'input':[5]}", "input", "entry 0"},
        {"{'input':[{'role':'tool','content':'x'}]}", "input", "role"},
        {"{'input':[{'role':'user'}]}", "input", "neither"},
        {"{'input':[{'role':'user','content':[{'type':'input_image'}]}]}", "input", "input_image"},
        {"{'input':[{'role':'user','content':[{'type':'input_text'}]}]}", "input", "no text"},
        {"{'input':[{'type':'computer_call'}]}", "input", "computer_call"},
        {"{'input':[{'type':'function_call_output','output':'x'}]}", "input", "call_id"},
        {"{'input':'x','instructions':[]}", "instructions", "string"},
        {"{'input':'x','tools':[{'type':'file_search'}]}", "tools", "file_search"},
        {"{'input':'x','tool_choice':{'type':'mcp'}}", "tool_choice", "must be"},
        {"{'input':'x','previous_response_id':'r'}", "previous_response_id", "not supported"},
        {"{'input':'x','background':true}", "background", "not supported"},
        {"{'input':'x','text':{'format':{'type':'json_object'}}}", "text.format", "json_object"},
        {"{'input':'x','truncation':'auto'}", "truncation", "disabled"},
        {"{'input':'x','reasoning':{'effort':5}}", "effort", "string"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        refuse(responses_translate, cases[i][0], cases[i][1], cases[i][2]);
    }
}

/* --- What chat makes of it, with a template that shows everything --- */

static void expect_prompt(const char *body, const char *wanted)
{
    static const char source[] =
        "{{ reasoning_effort }}|{{ enable_thinking }}|{% for t in tools or [] %}"
        "{{ t.function.name }},{% endfor %}|{% for m in messages %}[{{ m.role }}:{{ m.content }}]"
        "{% endfor %}";
    struct chat_prompt *prompt = chat_prompt_new();
    struct api_error error = {0};
    struct chat_body chat = {0};
    json_t *json = quoted(body);
    struct buf text = {0};

    chat_prompt_add(prompt, "default", source, sizeof(source) - 1);
    if (!chat_body_parse(&chat, json, &error) || !chat_body_render(&chat, prompt, &text, &error)) {
        fail_msg("%s: %s", body, error.message);
    }
    assert_string_equal(buf_str(&text), wanted);
    chat_body_release(&chat);
    buf_release(&text);
    json_decref(json);
    chat_prompt_destroy(&prompt);
}

static void test_chat_prompt(void **state)
{
    static const char tools[] = "'tools':[{'type':'function','function':{'name':'f'}},"
                                "{'type':'function','function':{'name':'g'}}]";
    char body[512];

    (void)state;
    expect_prompt("{'messages':[{'role':'user','content':'q'}]}", "|||[user:q]");
    expect_prompt("{'messages':[{'role':'developer','content':'q'}],'reasoning_effort':'low'}",
                  "low|True||[system:q]");
    expect_prompt("{'messages':[{'role':'user','content':'q'}],'reasoning_effort':'none'}",
                  "none|False||[user:q]");
    expect_prompt("{'messages':[{'role':'user','content':'q'}],'reasoning_effort':'none',"
                  "'chat_template_kwargs':{'enable_thinking':5}}",
                  "none|5||[user:q]");
    snprintf(body, sizeof(body), "{'messages':[{'role':'user','content':'q'}],%s}", tools);
    expect_prompt(body, "||f,g,|[user:q]");
    snprintf(body, sizeof(body),
             "{'messages':[{'role':'user','content':'q'}],%s,'tool_choice':{'type':"
             "'allowed_tools','allowed_tools':{'mode':'auto','tools':[{'type':'function',"
             "'function':{'name':'g'}}]}}}",
             tools);
    expect_prompt(body, "||g,|[user:q]");
    snprintf(body, sizeof(body),
             "{'messages':[{'role':'user','content':'q'}],%s,'tool_choice':'none'}", tools);
    expect_prompt(body, "|||[user:q]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),          cmocka_unit_test(test_messages_tools),
        cmocka_unit_test(test_messages_refused),  cmocka_unit_test(test_responses),
        cmocka_unit_test(test_responses_refused), cmocka_unit_test(test_chat_prompt),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
