// A run that is killed with SIGKILL at random instants while it does nothing but save: after each kill the
// newest checkpoint is whole, holds the right bits, and is no older than the last one that was reported.
#include <chrono>
#include <csignal>
#include <random>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "tests/trainer/checkpoint/samples.hpp"

namespace muster {
namespace {

using namespace checkpoint_samples;

// Goes on from the newest checkpoint, as a run does, and reports each step when its save has returned.
[[noreturn]] void save_until_killed(const std::string& folder, int ranks, std::int64_t attempt, int report) {
  run_ranks(ranks, [&](Communicator& comm) {
    const auto newest = newest_complete(comm, folder, Trust::full, [](const std::string&) {});
    for (std::int64_t step = newest.value_or(0) + 1;; ++step) {
      save_one(comm, folder, step, attempt);
      if (comm.rank() != 0) continue;
      if (write(report, &step, sizeof step) != sizeof step) _exit(1);
      keep_newest(folder, 2, attempt, [](const std::string&) { _exit(1); });
    }
  });
  _exit(1);
}

TEST(CheckpointKill, killed_at_any_instant_the_newest_checkpoint_is_whole) {
  using Clock = std::chrono::steady_clock;
  const TemporaryFolder folder;
  std::mt19937 random(7);
  std::int64_t reported = 0, interrupted = 0;
  Clock::duration save_time = std::chrono::milliseconds(10);  // as last seen: kills fall anywhere in a save
  for (int attempt = 1; attempt <= 40; ++attempt) {
    const int ranks = 1 + attempt % 3;
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) save_until_killed(folder.path(), ranks, attempt, ends[1]);
    close(ends[1]);
    auto last = Clock::now();
    for (std::size_t saves = random() % 4; saves > 0; --saves) {
      ASSERT_EQ(read(ends[0], &reported, sizeof reported), static_cast<ssize_t>(sizeof reported));
      save_time = Clock::now() - last;
      last = Clock::now();
    }
    std::this_thread::sleep_for(save_time * (random() % 1000) / 800);
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself: " << status;
    for (std::int64_t step; read(ends[0], &step, sizeof step) == sizeof step;) reported = step;
    close(ends[0]);

    const auto newest = newest_complete(folder.path(), Trust::full, [](const std::string&) {});
    ASSERT_GE(newest.value_or(0), reported) << "a checkpoint that was reported is lost";
    if (newest) expect_holds_step(Checkpoint::open(checkpoint_path(folder.path(), *newest)), *newest);
    for (const CheckpointInfo& info : list_checkpoints(folder.path())) {
      const bool final_name = info.path == checkpoint_path(folder.path(), info.step);
      ASSERT_TRUE(!final_name || verify_checkpoint(info.path).empty()) << info.path << " is torn";
      interrupted += info.attempt == attempt && !final_name;
    }
  }
  EXPECT_GE(interrupted, 3) << "hardly any kill hit a save";
}

}  // namespace
}  // namespace muster
