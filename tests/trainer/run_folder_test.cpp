#include "trainer/run_folder.hpp"

#include <array>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include "comm/threads/ranks.hpp"
#include "core/error.hpp"
#include "core/file.hpp"
#include "trainer/build_info.hpp"
#include "trainer/run/begin_attempt.hpp"

namespace muster {
namespace {

namespace fs = std::filesystem;

class RunFolderTest : public testing::Test {
 protected:
  RunFolderTest() {
    std::string pattern = (fs::temp_directory_path() / "muster_run_XXXXXX").string();
    root_ = mkdtemp(pattern.data());
  }
  ~RunFolderTest() override { fs::remove_all(root_); }
  RunFolder made() {
    RunFolder folder(root_ + "/a/run");
    folder.create();
    return folder;
  }
  std::string root_;
};

TEST_F(RunFolderTest, creates_everything_that_a_run_writes_into) {
  const RunFolder folder = made();
  EXPECT_TRUE(fs::is_directory(folder.checkpoints()));
  EXPECT_TRUE(fs::is_directory(fs::path(folder.log(3)).parent_path()));
  EXPECT_EQ(fs::path(folder.log(3)).filename(), "rank-3.log");
  EXPECT_NO_THROW(folder.create());
}

TEST_F(RunFolderTest, a_fresh_run_wants_an_empty_folder) {
  EXPECT_NO_THROW(RunFolder(root_ + "/missing").require_empty());
  EXPECT_NO_THROW(RunFolder(root_).require_empty());
  EXPECT_THROW(made().require_empty(), UserError);
}

TEST_F(RunFolderTest, a_folder_without_a_configuration_is_no_run) {
  const RunFolder folder = made();
  EXPECT_THROW(folder.require_run(), UserError);
  write_text_atomically(folder.config(), "");
  EXPECT_NO_THROW(folder.require_run());
}

TEST_F(RunFolderTest, a_file_in_the_way_of_the_folder_is_named) {
  write_text_atomically(root_ + "/file", "");
  const RunFolder folder(root_ + "/file");
  EXPECT_THROW(folder.require_empty(), UserError);
  EXPECT_THROW(folder.create(), UserError);
}

TEST_F(RunFolderTest, a_number_too_large_for_an_attempt_is_none) {
  const RunFolder folder = made();
  write_text_atomically(folder.attempts() + "/9223372036854775807", "");
  EXPECT_EQ(Attempt::begin(folder).number(), 1);
  EXPECT_EQ(Attempt::begin(folder).number(), 2);
}

TEST_F(RunFolderTest, a_newer_attempt_takes_the_run_over_from_the_older) {
  const RunFolder folder = made();
  const Attempt first = Attempt::begin(folder);
  EXPECT_EQ(first.number(), 1);
  EXPECT_FALSE(first.previous().has_value());
  EXPECT_NO_THROW(first.check_current());

  const Attempt second = Attempt::begin(folder);
  EXPECT_EQ(second.number(), 2);
  EXPECT_FALSE(first.still_current());
  EXPECT_FALSE(Attempt::join(folder, 1).still_current());
  EXPECT_TRUE(Attempt::join(folder, 2).still_current());
  ASSERT_TRUE(second.previous().has_value());
  EXPECT_EQ(second.previous()->pid, getpid());
  EXPECT_FALSE(second.previous()->alive) << "it is this very process";
  try {
    first.check_current();
    FAIL() << "the older attempt goes on";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("attempt 2 (host "), std::string::npos) << error.what();
  }
}

// A process of its own that has taken the run, until it is told to end.
class Child {
 public:
  explicit Child(const RunFolder& folder) {
    pid_ = fork();
    if (pid_ != 0) return;
    Attempt::begin(folder);
    for (;;) pause();
  }
  ~Child() {
    if (pid_ > 0) end();
  }
  pid_t pid() const { return pid_; }
  // Gone, but its parent has not noticed yet.
  void kill_only() const {
    kill(pid_, SIGKILL);
    siginfo_t told{};
    waitid(P_PID, static_cast<id_t>(pid_), &told, WEXITED | WNOWAIT);
  }
  void end() {
    kill_only();
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  pid_t pid_ = 0;
};

Attempt::Holder newest_of(const RunFolder& folder, pid_t pid) {
  std::optional<Attempt::Holder> holder;
  while (!holder || holder->pid != pid) holder = Attempt::newest(folder);
  return *holder;
}

TEST_F(RunFolderTest, an_attempt_lives_as_long_as_its_process_and_no_longer) {
  EXPECT_FALSE(Attempt::newest(RunFolder(root_ + "/nowhere")));
  const RunFolder folder = made();
  EXPECT_FALSE(Attempt::newest(folder));
  Child child(folder);
  EXPECT_TRUE(newest_of(folder, child.pid()).alive);
  child.kill_only();
  EXPECT_FALSE(Attempt::newest(folder)->alive);
  child.end();
  EXPECT_FALSE(Attempt::newest(folder)->alive);
}

// As in a container that was restarted, where the same numbers come again, or after a boot.
TEST_F(RunFolderTest, another_process_with_the_number_of_an_attempts_is_not_the_attempt) {
  const RunFolder folder = made();
  Child child(folder);
  newest_of(folder, child.pid());
  const std::string file = folder.attempts() + "/000001", told = read_text(file);
  for (const auto& [key, value] : {std::pair<const char*, const char*>{"started", "12345"},
                                   {"boot", "\"6b7e1c2a-0000-0000-0000-000000000000\""}}) {
    auto json = nlohmann::json::parse(told);
    ASSERT_TRUE(json.contains(key));
    json[key] = nlohmann::json::parse(value);
    File::create(file).write(json.dump());
    EXPECT_FALSE(Attempt::newest(folder)->alive) << key;
    json.erase(key);  // written by a version that did not tell it
    File::create(file).write(json.dump());
    EXPECT_FALSE(Attempt::newest(folder)->alive) << key;
  }
  File::create(file).write(told);
  EXPECT_TRUE(Attempt::newest(folder)->alive);
}

TEST_F(RunFolderTest, a_second_start_waits_for_the_first_and_is_refused_where_it_lives_on) {
  const RunFolder folder = made();
  Child child(folder);
  newest_of(folder, child.pid());
  const auto start = [&](std::chrono::milliseconds patience, int ranks) {
    std::string message = "none";
    run_ranks(ranks, [&](Communicator& comm) {
      try {
        refuse_while_another_lives(comm, folder, patience);
      } catch (const UserError& error) {
        if (comm.rank() == 0) message = error.what();
      }
    });
    return message;
  };
  for (const int ranks : {1, 3}) {
    const std::string refused = start(std::chrono::milliseconds(1), ranks);
    for (const std::string& part : {std::string("attempt 1 "), std::to_string(child.pid()), folder.path(),
                                    std::string("--run.takeover")})
      EXPECT_NE(refused.find(part), std::string::npos) << refused;
  }
  // Longer than any test runs: it ends because the child does.
  std::jthread killer([&] { child.kill_only(); });
  EXPECT_EQ(start(std::chrono::hours(1), 2), "none");
}

TEST_F(RunFolderTest, a_folder_that_another_host_does_not_see_cannot_be_joined) {
  const RunFolder folder = made();
  EXPECT_THROW(Attempt::join(folder, 1), UserError);
  EXPECT_THROW(Attempt::join(RunFolder(root_ + "/nowhere"), 1), UserError);
  Attempt::begin(folder);
  EXPECT_EQ(Attempt::join(folder, 1).number(), 1);
}

TEST_F(RunFolderTest, an_attempt_comes_after_those_of_copied_checkpoints_and_ends_one_that_lives) {
  const RunFolder folder = made();
  const Attempt first = Attempt::begin(folder);
  const Attempt later = Attempt::begin(folder, 7);
  EXPECT_EQ(later.number(), 8);
  EXPECT_FALSE(first.still_current());
  EXPECT_TRUE(later.still_current());
  EXPECT_EQ(Attempt::begin(folder, 7).number(), 9);
}

TEST_F(RunFolderTest, attempts_that_begin_together_get_different_numbers) {
  const RunFolder folder = made();
  std::vector<std::int64_t> numbers(8);
  {
    std::vector<std::jthread> threads;
    for (std::int64_t& number : numbers)
      threads.emplace_back([&] { number = Attempt::begin(folder).number(); });
  }
  EXPECT_EQ(std::set<std::int64_t>(numbers.begin(), numbers.end()),
            (std::set<std::int64_t>{1, 2, 3, 4, 5, 6, 7, 8}));
}

TEST_F(RunFolderTest, an_attempt_that_died_before_it_wrote_its_name_is_counted) {
  const RunFolder folder = made();
  write_text_atomically(folder.attempts() + "/000004", "");
  const Attempt attempt = Attempt::begin(folder);
  EXPECT_EQ(attempt.number(), 5);
  EXPECT_FALSE(attempt.previous()->alive);
}

TEST(BuildInfo, the_description_of_a_run_names_hosts_and_libraries) {
  const std::string text = describe_run(3, {"a", "a", "b"}, "AMD EPYC", fingerprint("cpu"));
  for (const char* part : {"\"muster\": \"", "\"attempt\": 3", "\"ranks\": 3", "\"onednn\": \"",
                           "\"hdf5\": \"", "\"mpi\": \"", "\"device\": \"AMD EPYC", "\"cpu\": \"",
                           "\"instruction_set\": \"", "\"compiler\": \"gcc ", "\"fingerprint\": \"binary "}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in " << text;
  }
  EXPECT_NE(fingerprint("cpu"), fingerprint("cuda"));
  EXPECT_EQ(fingerprint("cpu"), fingerprint("cpu"));
}

TEST(BuildInfo, finds_the_commit_in_the_programs_file_where_the_fingerprint_leaves_it_out) {
  const auto place = place_in_program(commit_text.data());
  ASSERT_TRUE(place);
  std::ifstream program("/proc/self/exe", std::ios::binary);
  program.seekg(static_cast<std::streamoff>(*place));
  std::array<char, 32> text{};
  program.read(text.data(), text.size());
  EXPECT_EQ(text, commit_text);
  const int on_the_stack = 0;
  EXPECT_FALSE(place_in_program(&on_the_stack));
}

}  // namespace
}  // namespace muster
