// NCCL among the threads of one process, each with a GPU of its own: on the host, the stand-in under ThreadSanitizer.
#include "comm/nccl.hpp"

#include <cstdlib>
#include <gtest/gtest.h>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "comm/staged.hpp"
#include "comm/threads/ranks.hpp"
#include "core/error.hpp"
#include "tests/comm/behaviours.hpp"

namespace muster {
namespace {

constexpr double deadline = 60;  // longer than any test, but where one is about it

template <class Body>
void run_on_gpus(int ranks, Body&& body, std::uint64_t delays = 0) {
  run_ranks(
      ranks,
      [&](Communicator& host) {
        const auto device = cuda_device(host.rank());
        device->use();
        body(host, *device);
      },
      delays);
}

template <class Body>
void run_nccl(int ranks, Body&& body) {
  run_on_gpus(ranks, [&](Communicator& host, const Device& device) {
    const auto comm = nccl_communicator(host, device, deadline);
    Place place(*comm, device);
    body(place);
  });
}

int gpus() {
  setenv("CUDA_ON_HOST_DEVICES", "4", 0);  // as many as there are ranks, where the stand-in makes them
  return cuda_device_count();
}

#define NEEDS_GPUS(count) \
  if (gpus() < (count)) GTEST_SKIP() << "needs " << (count) << " GPUs"

// NCCL itself does not look whether the ranks' calls agree, and waits for ever where they do not.
#define NEEDS_STAND_IN(count) \
  NEEDS_GPUS(count);          \
  if (cuda_device(0)->name() != "CUDA on host") GTEST_SKIP() << "needs the stand-in, which checks calls"

class OnGpus : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override { NEEDS_GPUS(std::get<1>(GetParam())); }
};

using Nccl = OnGpus;
TEST_P(Nccl, behaves) {
  const auto& [behaviour, ranks, no_delays] = GetParam();
  if (behaviours()[behaviour].of_hosts) return;
  run_nccl(ranks, [&](Place& place) { behaviours()[behaviour].show(place); });
}
INSTANTIATE_TEST_SUITE_P(Communicator, Nccl,
                         testing::Combine(testing::Range(std::size_t{0}, behaviours().size()),
                                          testing::Values(1, 2, 3, 4), testing::Values(0)),
                         [](const auto& test) { return name_of_case(test.param); });

using StagedOnGpus = OnGpus;
TEST_P(StagedOnGpus, behaves) {
  const auto& [behaviour, ranks, delays] = GetParam();
  if (behaviours()[behaviour].of_hosts) return;
  run_on_gpus(
      ranks,
      [&](Communicator& host, const Device& device) {
        MemoryAccount account;
        const auto comm = staged_communicator(host, device, account, 4 << 20);
        Place place(*comm, device);
        behaviours()[behaviour].show(place);
      },
      delays);
}
INSTANTIATE_TEST_SUITE_P(Communicator, StagedOnGpus,
                         testing::Combine(testing::Range(std::size_t{0}, behaviours().size()),
                                          testing::Values(1, 3), testing::Values(1)),
                         [](const auto& test) { return name_of_case(test.param); });

// Two ranks with memory that outlives their communicator: GPUs free memory only when nothing is under way.
template <class Body>
void run_two(Body&& body) {
  run_on_gpus(2, [&](Communicator& host, const Device& device) {
    Place place(host, device);
    const auto data = place.array(std::vector<float>(100'000, 1.0f));
    const auto comm = nccl_communicator(host, device, deadline);
    host.barrier("both are there").wait();
    body(*comm, data.bytes());
  });
}

TEST(NcclCommunicator, collectives_in_another_order_end_all_ranks_instead_of_hanging) {
  NEEDS_STAND_IN(2);
  testing::internal::CaptureStderr();
  run_two([](Communicator& comm, std::span<std::byte> data) {
    const auto both = [&] {
      if (comm.rank() == 0) comm.broadcast(data, 0, "weights").wait();
      comm.all_reduce(data, ReduceType::f32, ReduceOp::sum, "sum").wait();
      if (comm.rank() == 1) comm.broadcast(data, 0, "weights").wait();
    };
    EXPECT_ANY_THROW(both());
    EXPECT_ANY_THROW(comm.broadcast(data, 0, "nothing comes after a failure").wait());
  });
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("Broadcast(400000 bytes"), std::string::npos) << said;
  EXPECT_NE(said.find("AllReduce(400000 bytes"), std::string::npos) << said;
}

TEST(NcclCommunicator, messages_that_wait_for_a_rank_in_a_collective_end_all_ranks) {
  NEEDS_STAND_IN(2);
  testing::internal::CaptureStderr();
  run_two([](Communicator& comm, std::span<std::byte> data) {
    const auto exchange = [&] {
      const std::vector<std::span<const std::byte>> send(2, data.first(1000));
      const std::vector<std::span<std::byte>> receive(2, data.last(1000));
      if (comm.rank() == 0)
        comm.all_to_all(send, receive, "exchange").wait();
      else
        comm.broadcast(data, 0, "weights").wait();
    };
    EXPECT_ANY_THROW(exchange());
  });
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("rank 0 sends to or receives from rank 1, which calls Broadcast"), std::string::npos)
      << said;
}

TEST(NcclCommunicator, sizes_that_disagree_end_all_ranks) {
  NEEDS_STAND_IN(2);
  testing::internal::CaptureStderr();
  run_two([](Communicator& comm, std::span<std::byte> data) {
    const std::size_t size = comm.rank() == 0 ? 50 : 51;
    const std::vector<std::span<const std::byte>> send(2, data.first(size));
    const std::vector<std::span<std::byte>> receive(2, data.last(size));
    EXPECT_ANY_THROW(comm.all_to_all(send, receive, "exchange").wait());
  });
  EXPECT_NE(testing::internal::GetCapturedStderr().find("sends 5"), std::string::npos);
}

TEST(NcclCommunicator, a_rank_that_leaves_wakes_those_that_wait_for_it) {
  NEEDS_GPUS(2);
  EXPECT_THROW(run_two([](Communicator& comm, std::span<std::byte> data) {
                 if (comm.rank() == 0) throw std::runtime_error("out of luck");
                 EXPECT_THROW(comm.broadcast(data, 0, "weights").wait(), PeerError);
               }),
               std::runtime_error);
}

TEST(NcclCommunicator, a_rank_that_leaves_by_an_exception_does_not_wait_for_its_collectives) {
  NEEDS_GPUS(2);
  EXPECT_THROW(run_two([](Communicator& comm, std::span<std::byte> data) {
                 if (comm.rank() == 1) return comm.barrier("never").wait();
                 comm.broadcast(data, 1, "nobody else comes");
                 throw std::runtime_error("out of luck");
               }),
               std::runtime_error);
}

TEST(NcclCommunicator, closing_it_fails_what_is_still_under_way) {
  NEEDS_GPUS(2);
  run_on_gpus(2, [](Communicator& host, const Device& device) {
    Place place(host, device);
    const auto data = place.array(std::vector<float>(10));
    auto comm = nccl_communicator(host, device, deadline);
    host.barrier("both are there").wait();
    if (host.rank() == 0) {
      const Event lonely = comm->broadcast(data.bytes(), 1, "nobody else comes");
      comm.reset();
      EXPECT_THROW(lonely.wait(), PeerError);
    }
    host.barrier("end").wait();
  });
}

TEST(NcclCommunicator, the_watchdog_hears_of_a_lost_peer_from_the_oldest_collective) {
  NEEDS_GPUS(2);
  EXPECT_THROW(run_two([](Communicator& comm, std::span<std::byte> data) {
                 if (comm.rank() == 1) {
                   comm.barrier("rank 0 waits").wait();
                   throw std::runtime_error("out of luck");
                 }
                 const Event done = comm.broadcast(data, 1, "weights");
                 std::optional<PendingCollective> pending;
                 while (!(pending = comm.oldest_pending())) std::this_thread::yield();
                 EXPECT_EQ(pending->what, "weights");
                 EXPECT_EQ(pending->waiting, std::vector<int>{1});
                 comm.barrier("rank 0 waits").wait();
                 const auto watch = [&] {
                   while (true) comm.oldest_pending();
                 };
                 EXPECT_THROW(watch(), PeerError);
                 EXPECT_THROW(done.wait(), PeerError);
               }),
               std::runtime_error);
}

TEST(NcclCommunicator, memory_of_the_host_is_refused) {
  NEEDS_STAND_IN(1);
  run_nccl(1, [](Place& place) {
    std::vector<float> values(10);
    EXPECT_THROW(place.comm.all_reduce(std::as_writable_bytes(std::span(values)), ReduceType::f32,
                                       ReduceOp::sum, "of the host"),
                 Defect);
  });
}

TEST(NcclCommunicator, calls_that_fit_no_ranks_are_refused) {
  NEEDS_GPUS(1);
  run_nccl(1, [](Place& place) {
    EXPECT_THROW(place.comm.all_gather({}, "nothing"), Defect);
    EXPECT_THROW(place.comm.broadcast({}, 1, "from nobody"), Defect);
  });
}

}  // namespace
}  // namespace muster
