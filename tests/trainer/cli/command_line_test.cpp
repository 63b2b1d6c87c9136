#include "trainer/cli/command_line.hpp"

#include <gtest/gtest.h>
#include <regex>

#include "core/error.hpp"
#include "trainer/build_info.hpp"
#include "trainer/config/keys.hpp"

namespace muster {
namespace {

std::string output_of(const std::vector<std::string>& arguments) {
  testing::internal::CaptureStdout();
  const int code = read_command_line(arguments)();
  const std::string text = testing::internal::GetCapturedStdout();
  EXPECT_EQ(code, 0);
  return text;
}

std::string refusal_of(const std::vector<std::string>& arguments) {
  try {
    read_command_line(arguments);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(CommandLine, alone_it_prints_a_guide_to_every_command) {
  const std::string text = output_of({});
  for (const char* command : {"prepare", "plan", "train", "eval", "generate", "checkpoint", "bench"}) {
    EXPECT_NE(text.find(std::string("muster ") + command), std::string::npos) << command;
  }
}

TEST(CommandLine, the_help_of_each_command_teaches_with_an_example) {
  const std::vector<std::vector<std::string>> commands = {{"prepare"},
                                                          {"train"},
                                                          {"plan"},
                                                          {"eval"},
                                                          {"generate"},
                                                          {"checkpoint"},
                                                          {"checkpoint", "list"},
                                                          {"checkpoint", "verify"},
                                                          {"bench"},
                                                          {"bench", "ops"},
                                                          {"bench", "step"},
                                                          {"bench", "comm"},
                                                          {"bench", "scaling"}};
  for (std::vector<std::string> words : commands) {
    std::string spelt = "muster";
    for (const std::string& word : words) spelt += " " + word;
    words.push_back("--help");
    const std::string text = output_of(words);
    const std::size_t example = text.find("Example:\n  ");
    ASSERT_NE(example, std::string::npos) << text;
    EXPECT_NE(text.find(spelt, example), std::string::npos) << text;
  }
}

TEST(CommandLine, the_help_of_train_lists_every_key) {
  const std::string text = output_of({"train", "--help"});
  for (const Key& key : keys()) EXPECT_NE(text.find(std::string(key.name)), std::string::npos) << key.name;
}

TEST(CommandLine, tells_its_version_commit_and_backends) {
  const std::string text = output_of({"--version"});
  EXPECT_TRUE(std::regex_match(
      text, std::regex("muster [0-9]+\\.[0-9]+\\.[0-9]+\n"
                       "commit ([0-9a-f]{12}(-dirty)?|unknown: built without git)\nbackends cpu.*\n")))
      << text;
  EXPECT_EQ(backends().find("cuda") != std::string::npos, MUSTER_HAS_CUDA) << backends();
}

TEST(CommandLine, a_misspelt_command_is_refused_with_the_nearest) {
  EXPECT_EQ(refusal_of({"trian", "a.toml"}), "unknown command trian; did you mean train?");
  EXPECT_EQ(refusal_of({"checkpoint", "lst", "run"}), "unknown command lst; did you mean list?");
  EXPECT_EQ(refusal_of({"bench", "com"}), "unknown command com; did you mean comm?");
}

TEST(CommandLine, what_is_missing_or_unknown_is_refused_in_one_line) {
  const std::vector<std::vector<std::string>> lines = {
      {"train"},
      {"prepare", "a.txt"},
      {"plan", "a.toml", "--ranks", "0"},
      {"plan", "a.toml", "--ranks", "two"},
      {"plan", "a.toml", "--jsn"},
      {"plan", "a.toml", "--on", "h20"},
      {"plan", "a.toml", "--ranks-per-node", "0"},
      {"bench"},
      {"bench", "ops"},
      {"bench", "step", "a.toml", "--steps", "0"},
      {"generate", "run", "--top-p", "1.5"},
      {"eval", "run", "extra"},
      {"checkpoint"},
      {"checkpoint", "verify", "run", "x"},
      {"--verbose"},
  };
  for (const auto& line : lines) {
    const std::string message = refusal_of(line);
    EXPECT_NE(message.find("command line: "), std::string::npos) << line.front() << ": " << message;
    EXPECT_NE(message.find("; see muster"), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
  EXPECT_EQ(refusal_of({"plan", "a.toml", "--ranks", "x"}),
            "command line: --ranks: x is not a whole number from 1 to 1048576; see muster plan --help");
}

TEST(CommandLine, numbers_are_whole_decimal_and_within_their_limits) {
  for (const char* seed : {"99999999999999999999", "0x10", "-1", "1.5", "1e3", "7 "})
    EXPECT_NE(refusal_of({"generate", "run", std::string("--seed=") + seed})
                  .find("is not a whole number from 0 to"),
              std::string::npos)
        << seed;
  EXPECT_NE(refusal_of({"generate", "run", "--tokens", "0x10"}).find("0x10 is not a whole number from 1 to"),
            std::string::npos);
  EXPECT_NE(refusal_of({"generate", "run", "--temperature", "inf"}).find("a number of at least 0"),
            std::string::npos);
  EXPECT_NE(
      refusal_of({"prepare", "a", "--output", "b", "--end-token", "4294967296"}).find("from 0 to 4294967295"),
      std::string::npos);
  EXPECT_EQ(refusal_of({"generate", "run", "--seed", "9223372036854775807", "--tokens", "010",
                        "--temperature", "1e-3"}),
            "");
}

TEST(CommandLine, an_unknown_option_is_refused_with_the_one_that_was_meant) {
  EXPECT_EQ(refusal_of({"train", "a.toml", "--lr", "3e-4"}),
            "command line: unknown option --lr (did you mean --optimizer.lr?); see muster train --help");
  EXPECT_EQ(
      refusal_of({"plan", "a.toml", "--batch-size=4"}),
      "command line: unknown option --batch-size (did you mean --train.batch?); see muster plan --help");
  EXPECT_EQ(
      refusal_of({"generate", "run", "--temprature", "0.5"}),
      "command line: unknown option --temprature (did you mean --temperature?); see muster generate --help");
  EXPECT_EQ(refusal_of({"prepare", "a", "--output", "b", "--lr", "1"}),
            "command line: unknown option --lr; see muster prepare --help");
  EXPECT_EQ(refusal_of({"train", "a.toml", "--quux"}),
            "command line: unknown option --quux; see muster train --help");
}

TEST(CommandLine, keys_are_taken_by_the_commands_that_read_a_configuration) {
  EXPECT_EQ(refusal_of({"train", "a.toml", "--train.steps=5", "--run.fresh"}), "");
  EXPECT_EQ(refusal_of({"plan", "--model.layers", "2", "a.toml", "--ranks", "4", "--json"}), "");
  EXPECT_EQ(refusal_of({"plan", "a.toml", "--on", "h100", "--ranks", "16", "--ranks-per-node", "4"}), "");
  EXPECT_EQ(refusal_of({"bench", "scaling", "a.toml", "--train.batch=64", "--output", "scaling"}), "");
  EXPECT_EQ(refusal_of({"bench", "comm", "--run.device=cpu", "--json"}), "");
  EXPECT_NE(
      refusal_of({"prepare", "a", "--output", "b", "--train.steps=5"}).find("--train.steps has no meaning"),
      std::string::npos);
}

}  // namespace
}  // namespace muster
