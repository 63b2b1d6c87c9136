#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <gtest/gtest.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "comm/agree.hpp"
#include "comm/threads/ranks.hpp"
#include "comm/watchdog.hpp"
#include "core/device.hpp"
#include "core/error.hpp"
#include "core/file.hpp"
#include "core/stream.hpp"
#include "tests/comm/behaviours.hpp"
#include "tests/emulated.hpp"

namespace muster {
namespace {

class OnThreads : public testing::TestWithParam<Case> {};

TEST_P(OnThreads, behaves) {
  const auto& [behaviour, ranks, delays] = GetParam();
  run_ranks(
      ranks,
      [&](Communicator& comm) {
        const auto device = cpu_device();
        Place place(comm, *device);
        behaviours()[behaviour].show(place);
      },
      delays);
}

INSTANTIATE_TEST_SUITE_P(Communicator, OnThreads,
                         testing::Combine(testing::Range(std::size_t{0}, behaviours().size()),
                                          testing::Values(1, 2, 3, 4, 7), testing::Values(0, 1)),
                         [](const auto& test) { return name_of_case(test.param); });

TEST(RunRanks, a_failure_of_one_rank_wakes_the_others_and_is_the_one_rethrown) {
  std::atomic<int> woken = 0;
  try {
    run_ranks(4, [&](Communicator& comm) {
      comm.barrier("all here").wait();
      if (comm.rank() == 2) throw std::runtime_error("rank 2 is out of luck");
      try {
        std::vector<std::string> all = gather_strings(comm, "mine", "names");
      } catch (const PeerError&) {
        ++woken;
        throw;
      }
    });
    FAIL() << "nothing was thrown";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "rank 2 is out of luck");
  }
  EXPECT_EQ(woken, 3);
}

TEST(RunRanks, a_failure_wakes_a_rank_that_splits) {
  EXPECT_THROW(run_ranks(3,
                         [](Communicator& comm) {
                           if (comm.rank() == 0) throw UserError(std::string("not today"));
                           comm.split(0, 0);
                         }),
               UserError);
}

TEST(RunRanks, after_a_failure_every_later_collective_fails) {
  run_ranks(2, [](Communicator& comm) {
    if (comm.rank() == 1) return;
    EXPECT_THROW(comm.barrier("without rank 1").wait(), PeerError);
    EXPECT_THROW(comm.barrier("again").wait(), PeerError);
  });
}

TEST(Communicator, a_failed_event_fails_the_collective_behind_it) {
  run_ranks(2, [](Communicator& comm) {
    const Promise after;
    after.set_complete(std::make_exception_ptr(std::runtime_error("the kernel failed")));
    double value = 1;
    EXPECT_THROW(comm.all_reduce(std::as_writable_bytes(std::span(&value, 1)), ReduceType::f64, ReduceOp::sum,
                                 "loss", after.event())
                     .wait(),
                 std::runtime_error);
    EXPECT_EQ(value, 1);
  });
}

TEST(Communicator, sizes_that_disagree_are_a_defect) {
  EXPECT_THROW(run_ranks(2,
                         [](Communicator& comm) {
                           std::vector<std::byte> data(comm.rank() == 0 ? 100 : 102);
                           comm.broadcast(data, 0, "weights").wait();
                         }),
               Defect);
}

TEST(Communicator, a_wrong_number_of_pieces_is_a_defect) {
  run_ranks(2, [](Communicator& comm) {
    EXPECT_THROW(comm.all_gather({}, "nothing"), Defect);
    std::vector<std::byte> odd(5);
    EXPECT_THROW(comm.all_reduce(odd, ReduceType::f32, ReduceOp::sum, "odd"), Defect);
    EXPECT_THROW(comm.broadcast(odd, 2, "from nobody"), Defect);
  });
}

TEST(Communicator, destroying_it_fails_what_is_still_under_way) {
  run_ranks(2, [](Communicator& comm) {
    auto part = comm.split(0, comm.rank());
    if (comm.rank() == 0) {
      const Event lonely = part->barrier("nobody else comes");
      part.reset();
      EXPECT_THROW(lonely.wait(), PeerError);
    }
    comm.barrier("end").wait();
  });
}

void wait_for_rank_1_under_a_watchdog(double limit_seconds) {
  run_ranks(3, [&](Communicator& comm) {
    Watchdog watchdog(comm, limit_seconds);
    comm.pulse().set_step(41);
    comm.barrier("start").wait();
    if (comm.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(60));
    comm.barrier("sum of the losses").wait();
  });
}

// What dies is a program of its own, begun anew, for this one may have threads. An emulator cannot start itself.
void prepare_death_test() { testing::FLAGS_gtest_death_test_style = emulated() ? "fast" : "threadsafe"; }

TEST(WatchdogDeathTest, names_rank_step_collective_and_peer_and_ends_all_ranks) {
  prepare_death_test();
  EXPECT_EXIT(wait_for_rank_1_under_a_watchdog(0.3), testing::ExitedWithCode(75),
              "muster: rank [02] on .* in sum of the losses at step 41 for rank 1; ending all ranks\n");
}

// A communicator of a device that is asked for what is pending.
class AskedDevice final : public Communicator {
 public:
  explicit AskedDevice(std::function<void()> asked) : asked_(std::move(asked)) {}
  int rank() const override { return 0; }
  int size() const override { return 1; }
  int local_rank() const override { return 0; }
  int local_size() const override { return 1; }
  Event all_to_all(std::span<const std::span<const std::byte>>, std::span<const std::span<std::byte>>,
                   const std::string&, const Event&) override {
    return {};
  }
  Event all_gather(std::span<const std::span<std::byte>>, const std::string&, const Event&) override {
    return {};
  }
  Event all_reduce(std::span<std::byte>, ReduceType, ReduceOp, const std::string&, const Event&) override {
    return {};
  }
  Event broadcast(std::span<std::byte>, int, const std::string&, const Event&) override { return {}; }
  Event barrier(const std::string&) override { return {}; }
  std::unique_ptr<Communicator> split(int, int) override { return nullptr; }
  std::uint64_t bytes_sent() const override { return 0; }
  std::optional<PendingCollective> oldest_pending() const override {
    asked_();
    return std::nullopt;
  }
  void abort(int exit_code) override { std::_Exit(exit_code); }

 private:
  std::function<void()> asked_;
};

void wait_under_a_watchdog_for(std::function<void()> asked) {
  AskedDevice comm(std::move(asked));
  const Watchdog watchdog(comm, 0.1);
  std::this_thread::sleep_for(std::chrono::seconds(60));
}

TEST(WatchdogDeathTest, tells_of_a_failed_device_and_ends_all_ranks) {
  prepare_death_test();
  EXPECT_EXIT(wait_under_a_watchdog_for([] { throw Defect("an illegal address"); }),
              testing::ExitedWithCode(1), "muster: rank 0 on .*: an illegal address; ending all ranks\n");
}

// As a driver does while another thread of the process waits in it for a lost peer.
TEST(WatchdogDeathTest, ends_all_ranks_when_asking_the_device_blocks) {
  prepare_death_test();
  EXPECT_EXIT(wait_under_a_watchdog_for([] { std::this_thread::sleep_for(std::chrono::seconds(60)); }),
              testing::ExitedWithCode(75),
              "muster: rank 0 on .*: its device has not answered for .*ending all ranks\n");
}

TEST(Watchdog, is_silent_while_a_rank_computes_what_it_will_send) {
  // The collective waits for its event, five times as long as the limit.
  run_ranks(1, [](Communicator& comm) {
    Watchdog watchdog(comm, 0.05);
    ThreadStream compute;
    compute.enqueue([](NativeStream) { std::this_thread::sleep_for(std::chrono::milliseconds(250)); });
    double value = 1;
    comm.all_reduce(std::as_writable_bytes(std::span(&value, 1)), ReduceType::f64, ReduceOp::sum, "loss",
                    compute.record())
        .wait();
    EXPECT_EQ(value, 1);
  });
}

// A disk that is slow to sync, five times as long as ranks may wait.
TEST(Watchdog, is_silent_while_a_rank_that_others_wait_for_gets_on) {
  run_ranks(3, [](Communicator& comm) {
    Watchdog watchdog(comm, 0.3);
    if (comm.rank() == 1) {
      const Pulse::Work work = comm.pulse().work("loading");
      for (int part = 0; part < 15; ++part) {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        comm.pulse().beat();
      }
    }
    comm.barrier("the others").wait();
    watchdog.leave();
  });
}

void hang_in_work_under_a_watchdog(int ranks) {
  run_ranks(ranks, [](Communicator& comm) {
    const Watchdog watchdog(comm, 0.1);
    comm.pulse().set_step(41);
    if (comm.rank() == 0) {
      const Pulse::Work work = comm.pulse().writing("completing a checkpoint");
      std::this_thread::sleep_for(std::chrono::seconds(60));
    }
    comm.barrier("the others").wait();
  });
}

TEST(WatchdogDeathTest, names_the_work_in_which_a_rank_hangs_and_ends_all_ranks) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  for (const int ranks : {1, 3})
    EXPECT_EXIT(hang_in_work_under_a_watchdog(ranks), testing::ExitedWithCode(75),
                "muster: rank 0 on .* at step 41: has got no further for .* s in completing a checkpoint; "
                "ending all ranks\n");
}

TEST(WatchdogDeathTest, leaves_its_last_words_in_the_log) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const std::string log = testing::TempDir() + "last-words.log";
  File::create(log);
  const auto hang = [&] {
    run_ranks(1, [&](Communicator& comm) {
      comm.pulse().set_log(log);
      const Watchdog watchdog(comm, 0.1);
      const Pulse::Work work = comm.pulse().work("loading");
      std::this_thread::sleep_for(std::chrono::seconds(60));
    });
  };
  EXPECT_EXIT(hang(), testing::ExitedWithCode(75), "in loading");
  EXPECT_NE(read_text(log).find("has got no further"), std::string::npos);
}

TEST(DeadlineDeathTest, ends_the_process_when_it_is_not_over_in_time) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto hang = [](double limit, std::chrono::milliseconds time) {
    {
      const Deadline deadline("the start of MPI", limit);
      std::this_thread::sleep_for(time);
    }
    std::_Exit(0);
  };
  EXPECT_EXIT(hang(0.1, std::chrono::seconds(60)), testing::ExitedWithCode(75),
              "muster: the start of MPI has taken 0 s on ");
  EXPECT_EXIT(hang(60, std::chrono::milliseconds(1)), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(hang(0, std::chrono::milliseconds(1)), testing::ExitedWithCode(0), "");
}

TEST(Watchdog, ranks_that_leave_in_order_wait_for_the_last) {
  for (const int ranks : {1, 2, 4}) {
    std::atomic<int> came = 0;
    run_ranks(ranks, [&](Communicator& comm) {
      Watchdog watchdog(comm, 60);
      std::this_thread::sleep_for(std::chrono::milliseconds(20 * comm.rank()));
      ++came;
      watchdog.leave();
      EXPECT_EQ(came, ranks);
    });
  }
}

TEST(Watchdog, a_limit_of_zero_never_barks) {
  run_ranks(2, [](Communicator& comm) {
    Watchdog watchdog(comm, 0);
    if (comm.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    comm.barrier("late").wait();
  });
}

}  // namespace
}  // namespace muster
