#include "trainer/run_folder.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <optional>
#include <sched.h>
#include <set>
#include <sys/syscall.h>
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

// As fork(), into a new space of process numbers; negative where that is not permitted.
pid_t fork_into_a_container() {
  return static_cast<pid_t>(syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
}

// A process of its own that has taken the run, until it is told to end.
class Child {
 public:
  explicit Child(const RunFolder& folder) : pid_(fork()) {
    if (pid_ == 0) hold(folder);
  }
  // The first process of a container: one in whose space it has the number 1.
  static Child in_a_container(const RunFolder& folder) {
    const pid_t pid = fork_into_a_container();
    if (pid == 0) hold(folder);
    return Child(pid);
  }
  ~Child() {
    if (pid_ > 0) end();
  }
  Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, 0)) {}
  bool begun() const { return pid_ > 0; }
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
  explicit Child(pid_t pid) : pid_(pid) {}
  [[noreturn]] static void hold(const RunFolder& folder) {
    const Attempt attempt = Attempt::begin(folder);
    for (;;) pause();
  }
  pid_t pid_ = 0;
};

Attempt::Holder newest_of(const RunFolder& folder, pid_t pid) {
  std::optional<Attempt::Holder> holder;
  while (!holder || holder->pid != pid) holder = Attempt::newest(folder);
  return *holder;
}

std::string refusal_of_a_start(const RunFolder& folder, std::chrono::milliseconds patience, int ranks) {
  std::string message = "none";
  run_ranks(ranks, [&](Communicator& comm) {
    try {
      refuse_while_another_lives(comm, folder, patience);
    } catch (const UserError& error) {
      if (comm.rank() == 0) message = error.what();
    }
  });
  return message;
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
    write_text_atomically(file, json.dump());  // which the child has not locked
    EXPECT_FALSE(Attempt::newest(folder)->alive) << key;
    json.erase(key);  // written by a version that did not tell it
    write_text_atomically(file, json.dump());
    EXPECT_FALSE(Attempt::newest(folder)->alive) << key;
  }
  write_text_atomically(file, told);
  EXPECT_TRUE(Attempt::newest(folder)->alive) << "without a lock, as on a disk that has none";
}

// What a process of another container, the first one there, sees of the run's newest attempt.
bool lives_as_seen_from_a_container(const RunFolder& folder) {
  const pid_t looker = fork_into_a_container();
  if (looker == 0) _exit(Attempt::newest(folder)->alive ? 1 : 0);
  int status = 0;
  waitpid(looker, &status, 0);
  return WEXITSTATUS(status) == 1;
}

TEST_F(RunFolderTest, an_attempt_in_another_container_of_the_host_lives_as_long_as_its_process) {
  const RunFolder folder = made();
  Child child = Child::in_a_container(folder);
  if (!child.begun()) GTEST_SKIP() << "spaces of process numbers are not permitted here";
  const Attempt::Holder holder = newest_of(folder, 1);
  EXPECT_TRUE(holder.alive);
  EXPECT_FALSE(holder.here);
  EXPECT_TRUE(lives_as_seen_from_a_container(folder)) << "the same number in two containers";
  child.kill_only();
  EXPECT_FALSE(Attempt::newest(folder)->alive);
  EXPECT_FALSE(lives_as_seen_from_a_container(folder));
}

TEST_F(RunFolderTest, a_start_in_another_container_is_refused_with_a_remedy_for_there) {
  const RunFolder folder = made();
  const Child child = Child::in_a_container(folder);
  if (!child.begun()) GTEST_SKIP() << "spaces of process numbers are not permitted here";
  newest_of(folder, 1);
  const std::string refused = refusal_of_a_start(folder, std::chrono::milliseconds(1), 1);
  EXPECT_NE(refused.find("pid 1 of another container"), std::string::npos) << refused;
  EXPECT_NE(refused.find("kill -USR1 1 in that container"), std::string::npos) << refused;
}

// All of them have found the folder free before the first one begins.
TEST_F(RunFolderTest, of_starts_at_the_same_moment_one_begins_and_the_others_are_refused) {
  constexpr int rounds = 20, starts = 4;
  const RunFolder folder = made();
  for (int round = 0; round < rounds; ++round) {
    std::array<int, 2> gate{}, told{};
    ASSERT_EQ(pipe(gate.data()) + pipe(told.data()), 0);
    const auto tell = [&](char byte) {
      if (::write(told[1], &byte, 1) != 1) _exit(1);
    };
    std::vector<pid_t> processes;
    for (int start = 0; start < starts; ++start) {
      processes.push_back(fork());
      if (processes.back() != 0) continue;
      close(gate[1]);
      std::int64_t newest = 0;
      run_ranks(1, [&](Communicator& comm) { newest = refuse_while_another_lives(comm, folder); });
      tell('l');
      char none = 0;
      if (::read(gate[0], &none, 1) != 0) _exit(1);  // until the parent closes its end
      try {
        const Attempt attempt = begin_alone(folder, newest, 0);
        tell('b');
        for (;;) pause();
      } catch (const UserError&) {
        tell('r');
        _exit(2);
      }
    }
    const auto hear = [&] {
      std::string all(starts, '?');
      for (char& byte : all) EXPECT_EQ(::read(told[0], &byte, 1), 1);
      return all;
    };
    EXPECT_EQ(hear(), "llll");
    close(gate[1]);
    const std::string outcomes = hear();
    for (const pid_t process : processes) {
      kill(process, SIGKILL);
      waitpid(process, nullptr, 0);
    }
    for (const int end : {gate[0], told[0], told[1]}) close(end);
    ASSERT_EQ(std::count(outcomes.begin(), outcomes.end(), 'b'), 1) << outcomes << " in round " << round;
    ASSERT_EQ(Attempt::newest(folder)->number, round + 1);
  }
}

TEST_F(RunFolderTest, a_start_waits_for_one_that_has_not_told_yet_who_it_is_and_no_longer) {
  const RunFolder folder = made();
  write_text_atomically(folder.attempts() + "/000003", "");
  EXPECT_EQ(refusal_of_a_start(folder, std::chrono::milliseconds(1), 2), "none") << "it died when it began";
  std::jthread tells([&] { write_text_atomically(folder.attempts() + "/000003", "{}"); });
  EXPECT_EQ(refusal_of_a_start(folder, std::chrono::hours(1), 2), "none");
}

TEST_F(RunFolderTest, a_second_start_waits_for_the_first_and_is_refused_where_it_lives_on) {
  const RunFolder folder = made();
  Child child(folder);
  newest_of(folder, child.pid());
  for (const int ranks : {1, 3}) {
    const std::string refused = refusal_of_a_start(folder, std::chrono::milliseconds(1), ranks);
    for (const std::string& part : {std::string("attempt 1 "), std::to_string(child.pid()), folder.path(),
                                    std::string("--run.takeover")})
      EXPECT_NE(refused.find(part), std::string::npos) << refused;
  }
  // Longer than any test runs: it ends because the child does.
  std::jthread killer([&] { child.kill_only(); });
  EXPECT_EQ(refusal_of_a_start(folder, std::chrono::hours(1), 2), "none");
}

TEST_F(RunFolderTest, a_folder_that_another_host_does_not_see_cannot_be_joined) {
  const RunFolder folder = made();
  EXPECT_THROW(Attempt::join(folder, 1), UserError);
  EXPECT_THROW(Attempt::join(RunFolder(root_ + "/nowhere"), 1), UserError);
  const Attempt begun = Attempt::begin(folder);
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
  for (const char* part :
       {"\"muster\": \"", "\"attempt\": 3", "\"ranks\": 3", "\"onednn\": \"", "\"zlib\": \"", "\"zstd\": \"",
        "\"hdf5\": \"", "\"mpi\": \"", "\"device\": \"AMD EPYC", "\"cpu\": \"", "\"instruction_set\": \"",
        "\"compiler\": \"gcc ", "\"fingerprint\": \"binary "}) {
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
