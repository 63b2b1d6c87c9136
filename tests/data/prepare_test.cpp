#include "data/prepare.hpp"

#include <algorithm>
#include <atomic>
#include <barrier>
#include <filesystem>
#include <numeric>
#include <sys/wait.h>
#include <thread>

#include "core/hash.hpp"
#include "core/parallel.hpp"
#include "data/input.hpp"
#include "tests/data/prepare_fixture.hpp"

namespace muster {
namespace {

namespace fs = std::filesystem;

TEST_F(Prepare, a_text_file_is_a_document_and_folders_are_read_by_name) {
  write("in/b.txt", "second");
  write("in/a/z.md", "first");
  write("in/c.txt", "third \xC3\xA9");
  write("in/.hidden", "no");
  write("in/empty.txt", "");
  const DatasetInfo info = prepare({path("in")}, path("out"), all_train());
  EXPECT_EQ(info.train.text_bytes, 5u + 6 + 8);
  EXPECT_EQ(info.train.tokens(), 5u + 6 + 8 + 3);
  const Dataset dataset(path("out"));
  EXPECT_EQ(texts(dataset, Split::train), (std::vector<std::string>{"first", "second", "third \xC3\xA9"}));
  EXPECT_TRUE(dataset.shards(Split::validation).empty());
}

TEST_F(Prepare, a_line_of_json_is_a_document) {
  const std::string lines =
      "{\"text\": \"one\\ntwo\", \"other\": 1}\n\n{\"text\": \"\"}\r\n{\"text\": \"\\u00e9\"}";
  prepare({write("a.jsonl", lines)}, path("out"), all_train());
  EXPECT_EQ(texts(Dataset(path("out")), Split::train), (std::vector<std::string>{"one\ntwo", "\xC3\xA9"}));
}

TEST_F(Prepare, json_lines_are_known_by_their_content) {
  const std::string lines = "{\"id\": 1, \"text\": \"one\"}\n{\"text\": \"two\"}\n";
  const std::string out = path("out");
  for (const char* name : {"a.json", "a.ndjson", "a.jsonl", "a.data", "a"}) {
    prepare({write(name, lines)}, out, all_train());
    EXPECT_EQ(texts(Dataset(out), Split::train), (std::vector<std::string>{"one", "two"})) << name;
    fs::remove_all(out);
  }
  const auto is_text = [&](const char* name, const std::string& contents) {
    prepare({write(name, contents)}, out, all_train());
    EXPECT_EQ(texts(Dataset(out), Split::train), std::vector<std::string>{contents}) << name;
    fs::remove_all(out);
  };
  is_text("a.txt", lines);
  is_text("package.json", "{\"name\": \"x\"}\n");
  is_text("pretty.json", "{\n  \"name\": \"x\"\n}\n");
  is_text("numbers.json", "[1, 2]");
  is_text("brace.c", "{ text }\n");
}

TEST_F(Prepare, json_that_stands_on_no_lines_is_refused_with_the_way_to_mend_it) {
  const auto message = [&](const char* name, const std::string& contents) {
    return message_of([&] { prepare({write(name, contents)}, path("out"), all_train()); });
  };
  const std::string array = "[{\"text\": \"one\"},\n {\"text\": \"two\"}]\n";
  for (const char* name : {"a.json", "a.jsonl", "a"})
    EXPECT_TRUE(tells(message(name, array), {name, "a JSON array", "jq -c '.[]'"}));
  EXPECT_TRUE(
      tells(message("b.json", "{\n  \"text\": \"one\"\n}\n"), {"b.json", "several lines", "jq -c '.'"}));
  EXPECT_TRUE(tells(message("c.json", "{\"content\": \"one\"}\n{\"content\": \"two\"}\n"),
                    {"c.json:1", "has no field \"text\""}));
}

TEST_F(Prepare, bad_lines_are_skipped_counted_and_told_where_that_is_asked_for) {
  std::string lines;
  std::vector<std::string> wanted;
  for (int i = 0; i < 60000; ++i) {
    wanted.push_back("document " + std::to_string(i));
    lines += "{\"text\": \"" + wanted.back() + "\"}\n";
    if (i == 2) lines += "{\"txt\": \"a\"}\n{\"text\": null}\n{\"text\": \"caf\xE9\"}\n";
    if (i == 50000) lines += "no JSON\n";
  }
  PrepareOptions options = all_train();
  EXPECT_TRUE(tells(message_of([&] { prepare({write("a.jsonl", lines)}, path("out"), options); }),
                    {"a.jsonl:4 has no field \"text\"", "--skip-bad-lines"}));
  std::vector<std::string> told;
  options.skip_bad_lines = true;
  options.tell = [&](const std::string& line) { told.push_back(line); };
  std::uint64_t skipped = 0;
  prepare({path("a.jsonl")}, path("out"), options,
          [&](const PrepareProgress& now) { skipped = now.skipped_lines; });
  EXPECT_EQ(skipped, 4u);
  EXPECT_EQ(texts(Dataset(path("out")), Split::train), wanted);
  ASSERT_EQ(told.size(), 5u);
  EXPECT_TRUE(tells(told[0], {"a.jsonl:4", "no field"}));
  EXPECT_TRUE(tells(told[1], {"a.jsonl:5", "no string"}));
  EXPECT_TRUE(tells(told[2], {"a.jsonl:6", "no UTF-8"}));
  EXPECT_TRUE(tells(told[3], {"a.jsonl:50005", "no JSON object"}));
  EXPECT_TRUE(tells(told[4], {"4 lines were skipped", "60000 documents"}));

  told.clear();
  std::string many = "{\"text\": \"a\"}\n";
  for (int i = 0; i < 1000; ++i) many += "bad\n";
  prepare({write("b.jsonl", many)}, path("many"), options);
  ASSERT_EQ(told.size(), 12u);
  EXPECT_TRUE(tells(told[11], {"1000 lines were skipped"}));
}

TEST_F(Prepare, documents_longer_than_blocks_and_shards_stay_whole) {
  const std::vector<std::string> wanted = {long_text(3 * block_bytes + 17), "short", long_text(block_bytes),
                                           long_text(5)};
  std::vector<std::string> inputs;
  for (std::size_t i = 0; i < wanted.size(); ++i)
    inputs.push_back(write("in/" + std::to_string(i) + ".txt", wanted[i]));
  PrepareOptions options = all_train();
  options.shard_tokens = block_bytes + 100;
  const DatasetInfo info = prepare(inputs, path("out"), options);
  EXPECT_EQ(texts(Dataset(path("out")), Split::train), wanted);
  // The long one alone; then "short" and the next one fit together with the last.
  ASSERT_EQ(info.train.shards.size(), 2u);
  EXPECT_EQ(info.train.shards[0].tokens, 3 * block_bytes + 18);
  EXPECT_EQ(info.train.shards[1].documents, 3u);
}

TEST_F(Prepare, shards_are_filled_but_never_beyond_their_size) {
  std::vector<std::string> lines(100, std::string(9, 'x'));  // 10 tokens each
  PrepareOptions options = all_train();
  options.shard_tokens = 55;
  const DatasetInfo info = prepare({write_lines("a.jsonl", lines)}, path("out"), options);
  ASSERT_EQ(info.train.shards.size(), 20u);
  for (const ShardInfo& shard : info.train.shards) EXPECT_EQ(shard.tokens, 50u);
  EXPECT_EQ(info.train.shards[7].file, "train-00007.h5");
  EXPECT_EQ(texts(Dataset(path("out")), Split::train), lines);
}

TEST_F(Prepare, lines_that_cross_blocks_come_once) {
  std::vector<std::string> wanted;
  for (std::size_t i = 0; i < 60; ++i) wanted.push_back(long_text(i * 4099 % 150000 + 1));
  wanted.push_back(long_text(2 * block_bytes + 5));
  wanted.push_back("last");
  prepare({write_lines("a.jsonl", wanted)}, path("out"), all_train());
  EXPECT_EQ(texts(Dataset(path("out")), Split::train), wanted);
}

TEST_F(Prepare, bytes_do_not_depend_on_threads) {
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < 400; ++i) lines.push_back(long_text(i * 7919 % 20000 + 1));
  write_lines("in/a.jsonl", lines);
  write("in/b.txt", long_text(2 * block_bytes + 3));
  PrepareOptions options;
  options.validation = 0.1;
  options.shard_tokens = 1000000;
  const int before = thread_count();
  for (const int threads : {1, 3}) {
    set_thread_count(threads);
    prepare({path("in")}, path("out" + std::to_string(threads)), options);
  }
  set_thread_count(before);
  int files = 0;
  for (const auto& entry : fs::directory_iterator(path("out1"))) {
    EXPECT_EQ(read_text(entry.path()), read_text(path("out3/") + entry.path().filename().string()));
    ++files;
  }
  EXPECT_GT(files, 5);
}

TEST_F(Prepare, validation_is_a_share_of_documents_chosen_by_their_text) {
  std::vector<std::string> lines;
  for (int i = 0; i < 5000; ++i) lines.push_back("document " + std::to_string(i));
  PrepareOptions options;
  options.validation = 0.1;
  prepare({write_lines("a.jsonl", lines)}, path("a"), options);
  const auto train = texts(Dataset(path("a")), Split::train);
  auto held_out = texts(Dataset(path("a")), Split::validation);
  EXPECT_EQ(train.size() + held_out.size(), 5000u);
  EXPECT_NEAR(static_cast<double>(held_out.size()), 500, 5 * 21.2);  // binomial: deviation sqrt(5000 x 0.09)

  // In another order, among others, the same ones are held out.
  std::reverse(lines.begin(), lines.end());
  lines.resize(4000);
  prepare({write_lines("b.jsonl", lines)}, path("b"), options);
  std::sort(held_out.begin(), held_out.end());
  for (const std::string& text : texts(Dataset(path("b")), Split::validation))
    EXPECT_TRUE(std::binary_search(held_out.begin(), held_out.end(), text)) << text;
  for (const std::string& text : texts(Dataset(path("b")), Split::train))
    EXPECT_FALSE(std::binary_search(held_out.begin(), held_out.end(), text)) << text;
}

TEST_F(Prepare, holds_out_the_end_of_each_text_file_where_they_are_few) {
  std::string lines;
  for (int i = 0; i < 200000; ++i) lines += "line " + std::to_string(i) + "\n";
  std::string accents;
  for (int i = 0; i < 500; ++i) accents += "\xC3\xA9";
  PrepareOptions options;
  options.validation = 0.1;
  const DatasetInfo info = prepare(
      {write("a.txt", lines), write("b.txt", accents + "\n"), write("c.txt", "x")}, path("out"), options);
  const auto train = texts(Dataset(path("out")), Split::train);
  const auto held_out = texts(Dataset(path("out")), Split::validation);
  ASSERT_EQ(train.size(), 3u);
  ASSERT_EQ(held_out.size(), 2u);  // of "x" nothing can be cut off
  EXPECT_TRUE(train[0] + held_out[0] == lines);
  EXPECT_EQ(train[0].back(), '\n');
  EXPECT_NEAR(static_cast<double>(held_out[0].size()), 0.1 * static_cast<double>(lines.size()), 12);
  EXPECT_EQ(train[1] + held_out[1], accents + "\n");
  EXPECT_EQ(train[1].size() % 2, 0u);  // no character is cut
  EXPECT_EQ(info.validation.text_bytes, held_out[0].size() + held_out[1].size());
}

TEST_F(Prepare, cuts_a_long_line_rather_than_hold_out_next_to_nothing) {
  const std::string line(1000, 'x');
  PrepareOptions options;
  options.validation = 0.1;
  prepare({write("a.txt", line + "\n\n"), write("b.txt", "head\n" + line + "\n-- Bob\n")}, path("out"),
          options);
  for (const std::string& text : texts(Dataset(path("out")), Split::validation)) EXPECT_GE(text.size(), 100u);
}

TEST_F(Prepare, holds_out_whole_text_files_where_they_are_many) {
  for (int i = 0; i < 100; ++i) write("in/" + std::to_string(i), "text " + std::to_string(i));
  PrepareOptions options;
  options.validation = 0.1;
  prepare({path("in")}, path("out"), options);
  for (const std::string& text : texts(Dataset(path("out")), Split::validation))
    EXPECT_TRUE(text.starts_with("text "));
  EXPECT_EQ(texts(Dataset(path("out")), Split::train).size() +
                texts(Dataset(path("out")), Split::validation).size(),
            100u);
}

TEST_F(Prepare, a_train_file_and_a_validation_file_become_one_dataset) {
  PrepareOptions options;
  options.vocabulary = 10;
  options.token_type = "u16";
  options.validation_inputs = {write("val.bin", raw(std::vector<std::uint16_t>{7, 8}))};
  const std::string train = write("train.bin", raw(std::vector<std::uint16_t>{1, 2, 3}));
  prepare({train}, path("out"), options);
  const Dataset dataset(path("out"));
  EXPECT_EQ(documents(dataset, Split::train), (std::vector<std::vector<std::int32_t>>{{1, 2, 3}}));
  EXPECT_EQ(documents(dataset, Split::validation), (std::vector<std::vector<std::int32_t>>{{7, 8}}));

  const auto message = [&](const std::vector<std::string>& inputs, const PrepareOptions& how) {
    return message_of([&] { prepare(inputs, path("bad"), how); });
  };
  EXPECT_TRUE(
      tells(message({train, path("val.bin")}, options), {"val.bin is to be trained on and held out"}));
  PrepareOptions lines;
  lines.validation_inputs = {write("blank.jsonl", "\n")};
  write_lines("a.jsonl", {"a"});
  EXPECT_TRUE(tells(message({path("a.jsonl")}, lines), {"blank.jsonl holds no text"}));
  lines.validation_inputs = {path("a.jsonl")};
  EXPECT_TRUE(tells(message({path("blank.jsonl")}, lines), {"blank.jsonl holds no text"}));
  EXPECT_TRUE(tells(message({train}, lines), {"train.bin", "--token-type"}));
}

TEST_F(Prepare, documents_that_cannot_be_divided_are_told_with_one_remedy) {
  PrepareOptions options;
  options.validation = 0.999;
  EXPECT_TRUE(tells(message_of([&] { prepare({write_lines("a.jsonl", {"a"})}, path("out"), options); }),
                    {"0.999 fell on the only document", "--validation-input", "--validation 0"}));
}

TEST_F(Prepare, what_a_killed_prepare_left_is_told_and_removed) {
  std::vector<std::string> told;
  PrepareOptions options = all_train();
  options.tell = [&](const std::string& line) { told.push_back(line); };
  options.shard_tokens = 1000;
  std::vector<std::string> lines(400, std::string(99, 'x'));
  const std::string input = write_lines("a.jsonl", lines), out = path("out");
  const pid_t child = fork();
  if (child == 0) {
    set_thread_count(1);  // the threads that there were are not in a copy of the process
    prepare({input}, out, options, [](const PrepareProgress&) { raise(SIGKILL); });
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  ASSERT_TRUE(fs::exists(out + "/prepare.partial"));
  ASSERT_FALSE(fs::exists(out + "/dataset.json"));
  write("out/notes", "mine");
  EXPECT_TRUE(tells(message_of([&] { prepare({input}, out, options); }), {out, "not empty"}));
  EXPECT_TRUE(fs::exists(out + "/notes"));
  fs::remove(out + "/notes");
  write("out/dataset.json.partial-host-123", "killed while it wrote the last file");
  prepare({input}, out, options);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_TRUE(tells(told[0], {out, "did not end", "removed"}));
  EXPECT_EQ(texts(Dataset(out), Split::train), lines);
  EXPECT_FALSE(fs::exists(out + "/prepare.partial"));
}

TEST_F(Prepare, a_folder_that_another_writes_to_is_refused_and_left_alone) {
  PrepareOptions options = all_train();
  const std::string input = write_lines("a.jsonl", {"a"}), out = path("out");
  prepare({input}, out, options, [&](const PrepareProgress&) {
    EXPECT_TRUE(tells(message_of([&] { prepare({input}, out, options); }),
                      {"another muster prepare writes to", out}));
  });
  EXPECT_EQ(texts(Dataset(out), Split::train), std::vector<std::string>{"a"});
}

TEST_F(Prepare, progress_reaches_the_end) {
  PrepareProgress last;
  prepare({write("a.txt", long_text(3 * block_bytes))}, path("out"), all_train(),
          [&](const PrepareProgress& now) {
            EXPECT_GE(now.bytes, last.bytes);
            last = now;
          });
  EXPECT_EQ(last.bytes, last.total_bytes);
  EXPECT_EQ(last.documents, 1u);
  EXPECT_EQ(last.tokens, 3 * block_bytes + 1);
}

TEST_F(Prepare, bad_input_is_refused_by_name_and_leaves_nothing) {
  const auto fails = [&](const std::vector<std::string>& inputs, const PrepareOptions& options) {
    const std::string message = message_of([&] { prepare(inputs, path("out"), options); });
    EXPECT_FALSE(fs::exists(path("out"))) << message;
    return message;
  };
  EXPECT_TRUE(tells(fails({path("none.txt")}, {}), {"none.txt", "check the path"}));
  EXPECT_TRUE(tells(fails({write("empty.txt", "")}, {}), {"empty.txt is empty", "leave it out"}));
  fs::create_directories(path("nothing"));
  EXPECT_TRUE(tells(fails({path("nothing")}, {}), {"no files", "name files"}));
  EXPECT_TRUE(tells(fails({write("blank.jsonl", "\n\n")}, {}), {"blank.jsonl", "holds no text"}));
  EXPECT_TRUE(
      tells(fails({write("zero.txt", std::string("a\0b", 3))}, {}), {"zero.txt", "byte 1", "leave it out"}));
  EXPECT_TRUE(
      tells(fails({write("a.jsonl", "{\"text\": \"a\"}\n{\"txt\": 1}\n")}, {}), {"a.jsonl:2", "remove"}));
  EXPECT_TRUE(tells(fails({write("b.jsonl", "{\"text\": \"a\"}\n\n{\"text\": \n")}, {}), {"b.jsonl:3"}));
  EXPECT_TRUE(tells(fails({write("c.jsonl", "[1]\n")}, {}), {"c.jsonl:1"}));
  std::string many;
  for (int i = 0; i < 300000; ++i) many += "{\"text\": \"a\"}\n";
  EXPECT_TRUE(tells(fails({write("d.jsonl", many + "no\n")}, {}), {"d.jsonl:300001"}));

  PrepareOptions ids;
  EXPECT_TRUE(tells(fails({write("a.bin", "abcd")}, ids), {"a.bin", "--token-type"}));
  ids.token_type = "u16";
  EXPECT_TRUE(tells(fails({path("a.bin")}, ids), {"a.bin", "--vocabulary"}));
  ids.vocabulary = 100;
  EXPECT_TRUE(tells(fails({path("a.bin")}, ids), {"token 25185 at byte 0", "a.bin", "vocabulary of 100"}));
  EXPECT_TRUE(tells(fails({write("odd.bin", "abc")}, ids), {"odd.bin", "3 bytes", "--token-type"}));
  EXPECT_TRUE(
      tells(fails({path("a.bin"), path("blank.jsonl")}, ids), {"a.bin", "blank.jsonl", "two datasets"}));
  ids.end_token = 100;
  EXPECT_TRUE(tells(fails({path("a.bin")}, ids), {"end token 100", "--end-token"}));
  ids.end_token.reset();
  EXPECT_TRUE(tells(fails({write("a.npy", npy("<f4", "(1,)", "abcd"))}, ids), {"a.npy", "numpy.save"}));
  EXPECT_TRUE(tells(fails({write("b.npy", npy("<u2", "(1, 1)", "ab"))}, ids), {"b.npy", "one-dimensional"}));
  EXPECT_TRUE(tells(fails({write("c.npy", npy("<u2", "(9,)", "ab"))}, ids), {"c.npy", "cut short"}));
  EXPECT_TRUE(tells(fails({write("a.npz", "PK\3\4")}, ids), {"a.npz", "an archive of arrays", "numpy.save"}));
  EXPECT_TRUE(tells(fails({write("d.npy", "no numpy")}, ids), {"d.npy", "no .npy file"}));
  EXPECT_TRUE(
      tells(fails({write("e.npy", npy("<i8", "(1,)", std::string(8, '\xff')))}, ids), {"token -1", "e.npy"}));

  EXPECT_TRUE(tells(fails({write("text.txt", "text")}, ids), {"text.txt is text", "--vocabulary"}));

  PrepareOptions bad;
  bad.tokenizer = "words";
  EXPECT_TRUE(tells(fails({write("a.txt", "text")}, bad), {"'words'", "known is bytes"}));
  bad = {};
  bad.validation = 2;
  EXPECT_TRUE(tells(fails({path("a.txt")}, bad), {"--validation"}));
  bad.validation = 0.99999999;
  EXPECT_TRUE(tells(fails({path("blank.jsonl"), write("one.jsonl", "{\"text\": \"a\"}\n")}, bad),
                    {"the only document", "--validation 0"}));
}

TEST_F(Prepare, a_folder_that_holds_something_is_left_alone) {
  write("in/a.txt", "text");
  write("out/precious", "x");
  EXPECT_TRUE(
      tells(message_of([&] { prepare({path("in")}, path("out"), all_train()); }), {"out is not empty"}));
  EXPECT_TRUE(
      tells(message_of([&] { prepare({path("in")}, path("in/a.txt"), all_train()); }), {"a.txt is a file"}));
  EXPECT_EQ(read_text(path("out/precious")), "x");
}

TEST_F(Prepare, a_full_disk_is_told_and_leaves_nothing) {
  const std::string input = write("a.txt", long_text(3 * block_bytes));
  const std::uint64_t shard = prepare({input}, path("whole"), all_train()).train.shards[0].bytes;
  // Full while spooling, while the shard is written (it is longer than the spool), and at the last byte of
  // it.
  for (const std::uint64_t room : {std::uint64_t{100000}, 6 * block_bytes + 10, shard - 1}) {
    std::string message;
    {
      const SmallDisk disk(room);
      message = message_of([&] { prepare({input}, path("out"), all_train()); });
    }
    EXPECT_TRUE(tells(message, {path("out"), "File too large"})) << room;
    EXPECT_FALSE(fs::exists(path("out"))) << room;
  }
  EXPECT_NO_THROW(prepare({input}, path("out"), all_train()));
  EXPECT_NO_THROW(Dataset{path("out")});
}

TEST_F(Prepare, of_several_that_start_at_once_into_one_folder_one_writes_it) {
  for (int round = 0; round < 20; ++round) {
    const std::string out = path("out" + std::to_string(round));
    std::atomic<int> done = 0, refused = 0;
    std::barrier start(4);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&, t, input = write(std::to_string(t) + ".txt", std::string(100 + 50 * t, 'a'))] {
        start.arrive_and_wait();
        try {
          prepare({input}, out, all_train());
          ++done;
        } catch (const UserError&) {
          ++refused;
        }
      });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(done, 1);
    EXPECT_EQ(refused, 3);
    EXPECT_EQ(texts(Dataset(out, Verify::full), Split::train).size(), 1u);
    EXPECT_FALSE(fs::exists(out + "/prepare.partial"));
  }
}
}  // namespace
}  // namespace muster
