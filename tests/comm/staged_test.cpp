#include "comm/staged.hpp"

#include <gtest/gtest.h>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "comm/async_communicator.hpp"
#include "comm/threads/ranks.hpp"
#include "core/error.hpp"
#include "tests/comm/behaviours.hpp"
#include "tests/comm/thread_device.hpp"

namespace muster {
namespace {

constexpr std::uint64_t roomy = 4 << 20;  // for the largest all_to_all of the behaviours

// Runs `body` on each rank with memory staged on its way.
template <class Body>
void run_staged(int ranks, std::uint64_t slot_bytes, Body&& body, std::uint64_t delays = 0) {
  run_ranks(
      ranks,
      [&](Communicator& host) {
        const ThreadDevice device;
        MemoryAccount account;
        const auto comm = staged_communicator(host, device, account, slot_bytes);
        Place place(*comm, device);
        body(place, account);
      },
      delays);
}

class Staged : public testing::TestWithParam<Case> {};

TEST_P(Staged, behaves) {
  const auto& [behaviour, ranks, delays] = GetParam();
  run_staged(
      ranks, roomy, [&](Place& place, MemoryAccount&) { behaviours()[behaviour].show(place); }, delays);
}

INSTANTIATE_TEST_SUITE_P(Communicator, Staged,
                         testing::Combine(testing::Range(std::size_t{0}, behaviours().size()),
                                          testing::Values(1, 2, 3, 4), testing::Values(0, 1)),
                         [](const auto& test) { return name_of_case(test.param); });

TEST(StagedCommunicator, collectives_larger_than_a_slot_travel_in_parts) {
  for (const std::uint64_t slot_bytes : {64, 1000})
    run_staged(3, slot_bytes, [](Place& place, MemoryAccount&) {
      Communicator& comm = place.comm;
      std::vector<std::int64_t> numbers(700);
      for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<std::int64_t>(i * i);
      const auto weights =
          place.array(comm.rank() == 1 ? numbers : std::vector<std::int64_t>(numbers.size()));
      comm.broadcast(weights.bytes(), 1, "weights").wait();
      EXPECT_EQ(weights.values(), numbers);

      comm.all_reduce(weights.bytes(), ReduceType::i64, ReduceOp::sum, "sum").wait();
      std::vector<std::int64_t> wanted = numbers;
      for (std::int64_t& number : wanted) number *= 3;
      EXPECT_EQ(weights.values(), wanted);

      // 100, 250 and 350 numbers.
      const std::vector<std::size_t> begin = {0, 100, 350, 700};
      std::vector<std::int64_t> mine(numbers.size());
      const auto rank = static_cast<std::size_t>(comm.rank());
      for (std::size_t i = begin[rank]; i < begin[rank + 1]; ++i) mine[i] = numbers[i];
      const auto whole = place.array(mine);
      std::vector<std::span<std::byte>> pieces;
      for (std::size_t r = 0; r < 3; ++r)
        pieces.push_back(std::as_writable_bytes(whole.span().subspan(begin[r], begin[r + 1] - begin[r])));
      comm.all_gather(pieces, "gather").wait();
      EXPECT_EQ(whole.values(), numbers);
    });
}

TEST(StagedCommunicator, more_collectives_than_slots_may_be_under_way) {
  run_staged(2, 1024, [](Place& place, MemoryAccount&) {
    const Promise after;
    std::vector<Place::Array<std::int64_t>> values;
    std::vector<Event> done;
    for (std::int64_t i = 0; i < 20; ++i)
      values.push_back(place.array(std::vector<std::int64_t>(100, place.comm.rank() == 0 ? i : -1)));
    for (const auto& numbers : values)
      done.push_back(place.comm.broadcast(numbers.bytes(), 0, "numbers", after.event()));
    after.set_complete();
    done.back().wait();
    for (std::int64_t i = 0; i < 20; ++i)
      EXPECT_EQ(values[static_cast<std::size_t>(i)].values(), std::vector<std::int64_t>(100, i));
  });
}

TEST(StagedCommunicator, an_all_to_all_larger_than_a_slot_is_a_defect) {
  run_staged(1, 64, [](Place& place, MemoryAccount&) {
    // The own piece is not sent: it may be of any size.
    std::vector<std::byte> large(1000);
    const std::vector<std::span<const std::byte>> send = {large};
    const std::vector<std::span<std::byte>> receive = {large};
    place.comm.all_to_all(send, receive, "alone").wait();
  });
  EXPECT_THROW(run_staged(2, 64,
                          [](Place& place, MemoryAccount&) {
                            const auto data = place.array(std::vector<std::byte>(66));
                            const std::vector<std::span<const std::byte>> send(2, data.span().first(33));
                            const std::vector<std::span<std::byte>> receive(2, data.span().last(33));
                            place.comm.all_to_all(send, receive, "too much").wait();
                          }),
               Defect);
}

TEST(StagedCommunicator, it_takes_the_memory_that_is_planned) {
  for (const std::uint64_t slot_bytes : {64, 5000, 1 << 20})
    run_staged(2, slot_bytes, [&](Place&, MemoryAccount& account) {
      EXPECT_EQ(account.peak(MemoryKind::communication), staged_bytes(slot_bytes));
    });
}

TEST(StagedCommunicator, what_the_hosts_fail_with_reaches_who_waits_for_the_device) {
  run_staged(2, 1024, [](Place& place, MemoryAccount&) {
    if (place.comm.rank() == 1) return;
    const auto data = place.array(std::vector<std::byte>(100));
    EXPECT_THROW(place.comm.broadcast(data.span(), 1, "without rank 1").wait(), PeerError);
  });
}

TEST(StagedCommunicator, a_rank_that_leaves_by_an_exception_does_not_wait_for_its_collectives) {
  std::vector<std::byte> data(100);  // outlives what is under way
  EXPECT_THROW(run_staged(2, 1024,
                          [&](Place& place, MemoryAccount&) {
                            if (place.comm.rank() == 0) {
                              place.comm.broadcast(data, 1, "nobody else comes");
                              throw std::runtime_error("out of luck");
                            }
                            place.comm.barrier("never").wait();
                          }),
               std::runtime_error);
}

}  // namespace
}  // namespace muster
