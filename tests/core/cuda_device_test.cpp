// What core/stream.hpp and core/device.hpp promise, of GPUs; on one if there is one, or on the host's stand-in.
#include <gtest/gtest.h>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "core/device.hpp"
#include "core/error.hpp"

namespace muster {
namespace {

class CudaDevice : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "needs a GPU";
    device_ = cuda_device(0);
    stream_ = device_->make_stream(StreamPriority::normal);
  }

  Buffer on_device(std::uint64_t bytes = 4096) {
    return Buffer(account_, MemoryKind::data, bytes, device_->memory());
  }
  Buffer pinned(std::uint64_t bytes = 4096) {
    return Buffer(account_, MemoryKind::data, bytes, device_->staging());
  }
  void copy(Stream& stream, const Buffer& to, const Buffer& from) {
    stream.copy(to.data(), from.data(), to.bytes());
  }

  MemoryAccount account_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
};

TEST_F(CudaDevice, memory_is_aligned_to_a_page_and_zeroed) {
  for (const std::uint64_t bytes :
       {std::uint64_t{1}, std::uint64_t{100}, std::uint64_t{5000}, std::uint64_t{3 << 20}}) {
    const Buffer memory = on_device(bytes), staging = pinned(bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory.data()) % Buffer::alignment, 0u);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(staging.data()) % Buffer::alignment, 0u);
    staging.as<std::byte>().back() = std::byte{1};
    copy(*stream_, staging, memory);
    stream_->synchronize();
    for (const std::byte b : staging.as<std::byte>()) ASSERT_EQ(b, std::byte{0});
  }
  EXPECT_EQ(account_.now(MemoryKind::data), 0u);
}

// Sizes that are no whole pages: what the runtime then gives begins anywhere.
TEST_F(CudaDevice, memory_is_aligned_to_a_page_where_the_runtime_gives_none_that_is) {
  for (const Memory* memory : {&device_->memory(), &device_->staging()}) {
    std::vector<std::byte*> taken;
    for (const std::uint64_t bytes : {100u, 300u, 5000u}) {
      taken.push_back(memory->allocate(bytes));
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(taken.back()) % Buffer::alignment, 0u);
      const Buffer seen = pinned(bytes);
      stream_->copy(seen.data(), taken.back(), bytes);
      stream_->synchronize();
      for (const std::byte b : seen.as<std::byte>()) ASSERT_EQ(b, std::byte{0});
    }
    for (std::byte* data : taken) memory->release(data, 0);
  }
}

TEST_F(CudaDevice, refuses_more_memory_than_it_has_and_works_on) {
  EXPECT_THROW(on_device(std::uint64_t{1} << 45), UserError);
  const Buffer memory = on_device(), staging = pinned();
  copy(*stream_, memory, staging);
  stream_->synchronize();
}

TEST_F(CudaDevice, memory_taken_is_no_longer_available) {
  const std::uint64_t before = device_->available_bytes(), held = device_->held_bytes();
  const Buffer memory = on_device(64 << 20);
  EXPECT_LE(device_->available_bytes() + (32u << 20), before);
  EXPECT_GE(device_->held_bytes(), held + (32u << 20));
}

TEST_F(CudaDevice, work_after_a_wait_sees_what_the_other_stream_wrote) {
  const auto other = device_->make_stream(StreamPriority::high);
  const Buffer from = pinned(1 << 20), first = on_device(1 << 20), second = on_device(1 << 20),
               to = pinned(1 << 20);
  const auto numbers = from.as<int>(), seen = to.as<int>();
  for (int round = 1; round < 4; ++round) {
    std::iota(numbers.begin(), numbers.end(), round);
    copy(*stream_, first, from);
    other->wait(stream_->record());
    copy(*other, second, first);
    copy(*other, to, second);
    other->synchronize();
    ASSERT_EQ(seen.front(), round);
    ASSERT_EQ(seen.back(), round + static_cast<int>(seen.size()) - 1);
  }
}

TEST_F(CudaDevice, a_stream_waits_for_the_host_while_its_caller_goes_on) {
  const Buffer from = pinned(), memory = on_device(), to = pinned();
  const Promise promise;
  stream_->wait(promise.event());
  copy(*stream_, memory, from);
  copy(*stream_, to, memory);
  const Event done = stream_->record();
  EXPECT_FALSE(done.complete());
  from.as<int>()[0] = 7;
  promise.set_complete();
  done.wait();
  EXPECT_TRUE(done.complete());
  EXPECT_EQ(to.as<int>()[0], 7);
}

TEST_F(CudaDevice, an_event_that_is_not_complete_is_no_failure_to_later_work) {
  const Buffer from = pinned(), memory = on_device();  // to allocate could wait for what waits for the host
  const Promise promise;
  stream_->wait(promise.event());
  EXPECT_FALSE(stream_->record().complete());
  EXPECT_NO_THROW(copy(*stream_, memory, from));
  promise.set_complete();
  EXPECT_NO_THROW(stream_->synchronize());
}

TEST_F(CudaDevice, a_failure_of_the_host_reaches_whoever_waits_for_the_stream) {
  const Promise promise;
  stream_->wait(promise.event());
  promise.set_complete(std::make_exception_ptr(std::runtime_error("a peer was lost")));
  EXPECT_THROW(stream_->synchronize(), std::runtime_error);
}

TEST_F(CudaDevice, a_failure_of_the_host_reaches_whoever_waits_for_a_stream_that_waited_for_it) {
  const auto other = device_->make_stream(StreamPriority::normal);
  const Promise promise;
  promise.set_complete(std::make_exception_ptr(std::runtime_error("a peer was lost")));
  stream_->wait(promise.event());
  const Event failed = stream_->record();
  other->wait(failed);
  EXPECT_THROW(failed.wait(), std::runtime_error);
  EXPECT_THROW(other->synchronize(), std::runtime_error);
}

TEST_F(CudaDevice, streams_that_wait_for_each_other_fail_once_and_do_not_hang) {
  const auto other = device_->make_stream(StreamPriority::normal);
  stream_->wait(other->record());
  other->wait(stream_->record());
  EXPECT_NO_THROW(stream_->synchronize());
  const Promise promise;
  promise.set_complete(std::make_exception_ptr(std::runtime_error("a peer was lost")));
  other->wait(promise.event());
  stream_->wait(other->record());
  EXPECT_THROW(stream_->synchronize(), std::runtime_error);
}

TEST_F(CudaDevice, timestamps_are_seconds_of_the_steady_clock_in_order) {
  const Buffer from = pinned(8 << 20), memory = on_device(8 << 20);
  const double before = steady_seconds();
  const auto begin = stream_->timestamp();
  for (int i = 0; i < 4; ++i) copy(*stream_, memory, from);
  const auto end = stream_->timestamp();
  stream_->synchronize();
  const double after = steady_seconds();
  // The base of the clock is read after a wait for the device, whose length is unknown; it is not a thousandth second.
  EXPECT_LE(before - 1e-3, begin());
  EXPECT_LT(begin(), end());
  EXPECT_LE(end(), after + 1e-3);
}

TEST_F(CudaDevice, a_recording_runs_when_it_is_replayed_and_not_before) {
  const auto other = device_->make_stream(StreamPriority::normal);
  const Buffer from = pinned(), first = on_device(), second = on_device(), to = pinned();
  from.as<int>()[0] = 1;
  const auto recording = stream_->capture([&] {
    copy(*stream_, first, from);
    other->wait(stream_->record());  // the other stream joins in,
    copy(*other, second, first);
    stream_->wait(other->record());  // and comes back
    copy(*stream_, to, second);
  });
  ASSERT_NE(recording, nullptr);
  stream_->synchronize();
  EXPECT_EQ(to.as<int>()[0], 0);
  for (int round = 2; round < 6; ++round) {
    from.as<int>()[0] = round;
    stream_->replay(*recording);
    stream_->synchronize();
    EXPECT_EQ(to.as<int>()[0], round);
  }
}

TEST_F(CudaDevice, a_recording_outlives_its_owner_until_it_has_run) {
  const Buffer from = pinned(1 << 20), memory = on_device(1 << 20), to = pinned(1 << 20);
  from.as<int>()[0] = 3;
  stream_->replay(*stream_->capture([&] {
    copy(*stream_, memory, from);
    copy(*stream_, to, memory);
  }));
  stream_->synchronize();
  EXPECT_EQ(to.as<int>()[0], 3);
}

TEST_F(CudaDevice, refuses_to_record_what_waits_for_the_host_and_works_on) {
  const Buffer from = pinned(), to = pinned();
  const Promise promise;
  EXPECT_THROW(stream_->capture([&] { stream_->wait(promise.event()); }), Defect);
  EXPECT_THROW(stream_->capture([&] { stream_->synchronize(); }), Defect);
  const auto other = device_->make_stream(StreamPriority::normal);
  const Event before = other->record();
  EXPECT_THROW(stream_->capture([&] { stream_->wait(before); }), Defect);
  EXPECT_THROW(stream_->capture([&] {
    other->wait(stream_->record());  // and never comes back
    copy(*other, to, from);
  }),
               Defect);
  promise.set_complete();

  from.as<int>()[0] = 5;
  copy(*stream_, to, from);
  stream_->synchronize();
  EXPECT_EQ(to.as<int>()[0], 5);
}

TEST_F(CudaDevice, says_which_gpus_there_are_when_one_is_asked_for_that_is_not) {
  try {
    cuda_device(1000);
    FAIL() << "there is no such GPU";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("there is no GPU 1000"), std::string::npos) << error.what();
  }
}

TEST_F(CudaDevice, names_what_bits_depend_on) {
  EXPECT_FALSE(device_->name().empty());
  EXPECT_NE(device_->fingerprint().find(device_->name()), std::string::npos);
  EXPECT_NE(device_->fingerprint().find("CUDA"), std::string::npos);
}

}  // namespace
}  // namespace muster
