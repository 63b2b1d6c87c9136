// The scheduler of a kernel's threads. It is compiled without instrumentation, as the fibers are: its own tables are
// no part of the program under test. The orderings that barriers make it tells ThreadSanitizer itself.
#include "tests/cuda_on_host/kernel_threads.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "tests/cuda_on_host/fiber.hpp"
#include "tests/cuda_on_host/streams.hpp"

namespace cuda_on_host {
namespace {

constexpr unsigned warp_size = 32;

enum class State : std::uint8_t { waits_to_start, ready, waits_for_warp, waits_for_block, done };

struct Thread {
  State state = State::done;
  unsigned number = 0;
  Fiber* fiber = nullptr;
  // While it waits for its warp:
  unsigned mask = 0;
  unsigned turn = 0;
  unsigned source = 0;  // the lane whose value it takes
  std::array<std::byte, 16> given{}, taken{};
  bool vote = false;
  unsigned ballot = 0;
};

struct Warp {
  unsigned alive = 0;
  unsigned waiting = 0;
  unsigned turn = 0;
  std::array<char, 2> tokens{};  // in turn, for the reason that a block's are
};

std::atomic<std::uint64_t>& schedule_seed() {
  static std::atomic<std::uint64_t> seed = static_cast<std::uint64_t>(setting("SEED", 0));
  return seed;
}

// Linear congruential: the order is the same on every machine.
template <class T>
void shuffle(std::vector<T>& items) {
  std::uint64_t seed = schedule_seed();
  if (seed == 0) return;
  for (std::size_t i = items.size(); i > 1; --i) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    std::swap(items[i - 1], items[(seed >> 33) % i]);
  }
}

void fiber_main();

// The block that runs on this thread, and its fibers, kept from block to block.
class Block {
 public:
  void run_part(dim3 grid, dim3 size, std::size_t shared_bytes, void (*kernel)(const void*),
                const void* arguments, std::size_t first, std::size_t step);
  void run_threads_of_fiber();
  void wait_for_block();
  void wait_for_warp(unsigned mask);

  unsigned lane() const { return running_->number % warp_size; }
  Thread& running() { return *running_; }

 private:
  void run();
  void switch_to(Thread& thread);
  void switch_back() { Fiber::switch_stacks(*running_->fiber, *scheduler_); }
  void become(Thread& thread);
  Fiber& fiber_for(unsigned number);
  void open_block();
  bool open_warp(unsigned mask);
  void end_thread();
  [[noreturn]] void report_deadlock() const;
  Warp& warp() { return warps_[running_->number / warp_size]; }
  Thread& lane_of_warp(unsigned lane) { return threads_[running_->number / warp_size * warp_size + lane]; }

  ThreadIndex index_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<unsigned> order_;
  std::size_t started_ = 0;  // of order_
  unsigned alive_ = 0;
  unsigned at_barrier_ = 0;
  unsigned barriers_ = 0;
  // In turn: a thread that comes to the next barrier must not be ordered before those that have yet to leave this one.
  std::array<char, 2> tokens_{};
  char begin_token_ = 0, end_token_ = 0;  // two, so that a thread that ends is not before one that begins
  Thread* running_ = nullptr;
  void (*kernel_)(const void*) = nullptr;
  const void* arguments_ = nullptr;
  const CallSite* site_ = nullptr;
  GuardedMemory shared_;

  std::unique_ptr<Fiber> scheduler_;  // this thread's own stack
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> free_;
};

thread_local Block block_of_this_thread;

// With identities a fiber is one thread's for all of the block, else the two would look like one.
Fiber& Block::fiber_for(unsigned number) {
  while (fibers_have_identities() ? fibers_.size() <= number : free_.empty()) {
    fibers_.push_back(std::make_unique<Fiber>(fiber_main));
    // Not by a fiber, later: growing is the allocator's business, which ThreadSanitizer sees.
    free_.reserve(fibers_.capacity());
    if (!fibers_have_identities()) free_.push_back(fibers_.back().get());
  }
  if (fibers_have_identities()) return *fibers_[number];
  Fiber& fiber = *free_.back();
  free_.pop_back();
  return fiber;
}

void Block::become(Thread& thread) {
  const dim3& size = index_.block_size;
  running_ = &thread;
  index_.thread = {thread.number % size.x, thread.number / size.x % size.y,
                   thread.number / (size.x * size.y)};
}

void Block::switch_to(Thread& thread) {
  become(thread);
  Fiber::switch_stacks(*scheduler_, *thread.fiber);
}

void Block::open_block() {
  for (Thread& thread : threads_)
    if (thread.state == State::waits_for_block) thread.state = State::ready;
  at_barrier_ = 0;
  ++barriers_;
}

void Block::wait_for_block() {
  char* token = &tokens_[barriers_ % 2];
  order_before(token);
  running_->state = State::waits_for_block;
  if (++at_barrier_ == alive_) open_block();
  if (running_->state == State::waits_for_block) switch_back();
  order_after(token);
}

// Lets the living lanes of the mask go on, if all of them wait; what they exchange is handed over here.
bool Block::open_warp(unsigned mask) {
  Warp& mine = warp();
  const unsigned members = mask & mine.alive;
  if ((mine.waiting & members) != members) return false;
  unsigned ballot = 0;
  for (unsigned i = 0; i < warp_size; ++i) {
    if ((members >> i & 1) == 0) continue;
    if (lane_of_warp(i).mask != mask) give_up("lanes of a warp wait for one another with different masks");
    if (lane_of_warp(i).vote) ballot |= 1u << i;
  }
  for (unsigned i = 0; i < warp_size; ++i) {
    if ((members >> i & 1) == 0) continue;
    Thread& thread = lane_of_warp(i);
    if ((members >> thread.source & 1) != 0) thread.taken = lane_of_warp(thread.source).given;
    thread.ballot = ballot;
    thread.state = State::ready;
  }
  mine.waiting &= ~members;
  mine.turn ^= 1;
  return true;
}

void Block::wait_for_warp(unsigned mask) {
  Warp& mine = warp();
  Thread& self = *running_;
  if ((mask >> lane() & 1) == 0) give_up("a lane waits with a mask that it is not in");
  if (warps_.size() * warp_size > threads_.size() && running_->number / warp_size + 1 == warps_.size())
    mask &= (1u << threads_.size() % warp_size) - 1;  // the last warp may be short
  self.mask = mask;
  self.turn = mine.turn;
  for (unsigned i = 0; i < warp_size; ++i)
    if ((mask & mine.waiting) >> i & 1) self.turn = lane_of_warp(i).turn;
  char* token = &mine.tokens[self.turn];
  order_before(token);
  mine.waiting |= 1u << lane();
  self.state = State::waits_for_warp;
  if (!open_warp(mask)) switch_back();
  order_after(token);
}

// A thread that has ended counts as arrived.
void Block::end_thread() {
  Warp& mine = warp();
  running_->state = State::done;
  --alive_;
  mine.alive &= ~(1u << lane());
  if (alive_ > 0 && at_barrier_ == alive_) open_block();
  for (unsigned i = 0; i < warp_size; ++i)
    if (mine.waiting >> i & 1) open_warp(lane_of_warp(i).mask);
}

void Block::run_threads_of_fiber() {
  Fiber::arrive(*scheduler_);
  while (true) {
    order_after(&begin_token_);
    if (fibers_have_identities()) site_->enter();
    kernel_(arguments_);
    if (fibers_have_identities()) site_->leave();
    order_before(&end_token_);
    end_thread();
    // Threads that never wait follow one another on one fiber, without a switch.
    Fiber* fiber = running_->fiber;
    if (!fibers_have_identities() && started_ < order_.size()) {
      Thread& next = threads_[order_[started_++]];
      next.state = State::ready;
      next.fiber = fiber;
      become(next);
      continue;
    }
    if (!fibers_have_identities()) free_.push_back(fiber);
    switch_back();
  }
}

void fiber_main() { block_of_this_thread.run_threads_of_fiber(); }

void Block::report_deadlock() const {
  const auto count = [this](State state) {
    return std::count_if(threads_.begin(), threads_.end(), [&](const Thread& t) { return t.state == state; });
  };
  std::fprintf(stderr,
               "cuda_on_host: deadlock in block (%u,%u,%u) of %zu threads: %td wait for their warp, %td at "
               "__syncthreads, %td have ended\n",
               index_.block.x, index_.block.y, index_.block.z, threads_.size(), count(State::waits_for_warp),
               count(State::waits_for_block), count(State::done));
  std::abort();
}

void Block::run() {
  const auto count = static_cast<unsigned>(threads_.size());
  alive_ = count;
  at_barrier_ = 0;
  started_ = 0;
  std::fill(warps_.begin(), warps_.end(), Warp{});
  for (unsigned i = 0; i < count; ++i) {
    threads_[i].state = State::waits_to_start;
    threads_[i].number = order_[i] = i;
    warps_[i / warp_size].alive |= 1u << i % warp_size;
  }
  shuffle(order_);
  order_before(&begin_token_);
  while (alive_ > 0) {
    bool ran = false;
    for (unsigned begin = 0; begin < count; begin += warp_size) {
      // A warp goes on while any lane of it can.
      for (bool again = true; again;) {
        again = false;
        for (unsigned i = begin; i < std::min(count, begin + warp_size); ++i) {
          Thread& thread = threads_[order_[i]];
          if (thread.state == State::waits_to_start) {
            thread.fiber = &fiber_for(thread.number);
            thread.state = State::ready;
            ++started_;
          }
          if (thread.state != State::ready) continue;
          switch_to(thread);
          ran = again = true;
        }
      }
    }
    if (!ran) report_deadlock();
  }
  order_after(&end_token_);
}

void Block::run_part(dim3 grid, dim3 size, std::size_t shared_bytes, void (*kernel)(const void*),
                     const void* arguments, std::size_t first, std::size_t step) {
  const std::size_t threads = std::size_t{size.x} * size.y * size.z;
  if (!scheduler_) scheduler_ = std::make_unique<Fiber>();
  threads_.resize(threads);
  warps_.resize((threads + warp_size - 1) / warp_size);
  order_.resize(threads);
  index_.block_size = size;
  index_.grid_size = grid;
  index_.shared = shared_.take(shared_bytes);
  kernel_ = kernel;
  arguments_ = arguments;
  site_ = current_site();
  current = &index_;
  std::vector<std::size_t> blocks(std::size_t{grid.x} * grid.y * grid.z);
  std::iota(blocks.begin(), blocks.end(), std::size_t{0});
  shuffle(blocks);
  for (std::size_t i = first; i < blocks.size(); i += step) {
    const std::size_t b = blocks[i];
    index_.block = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                    static_cast<unsigned>(b / grid.x / grid.y)};
    // NaN, so that reads of what the block has not written show.
    if (shared_bytes > 0) std::memset(index_.shared, 0xff, shared_bytes);
    run();
  }
  current = nullptr;
}

}  // namespace

void shuffle_threads(std::uint64_t seed) { schedule_seed() = seed; }

void run_grid(dim3 grid, dim3 size, std::size_t shared_bytes, void (*kernel)(const void*),
              const void* arguments) {
  const auto part = [&](std::size_t first, std::size_t step) {
    block_of_this_thread.run_part(grid, size, shared_bytes, kernel, arguments, first, step);
  };
  if (fibers_have_identities() && std::size_t{grid.x} * grid.y * grid.z > 1)
    run_on_two_threads([&](int which) { part(static_cast<std::size_t>(which), 2); });
  else
    part(0, 1);
}

void wait_for_block() { block_of_this_thread.wait_for_block(); }
void wait_for_warp(unsigned mask) { block_of_this_thread.wait_for_warp(mask); }
unsigned lane() { return block_of_this_thread.lane(); }

void exchange_in_warp(unsigned mask, void* value, std::size_t bytes, unsigned source) {
  if ((mask >> source & 1) == 0) give_up("a lane takes a value from one that is not in its mask");
  Thread& self = block_of_this_thread.running();
  std::copy_n(static_cast<const std::byte*>(value), bytes, self.given.begin());
  self.source = source;
  block_of_this_thread.wait_for_warp(mask);
  std::copy_n(self.taken.begin(), bytes, static_cast<std::byte*>(value));
}

unsigned ballot_in_warp(unsigned mask, bool vote) {
  Thread& self = block_of_this_thread.running();
  self.vote = vote;
  block_of_this_thread.wait_for_warp(mask);
  self.vote = false;
  return self.ballot;
}

void fence() {
  static char token;
  order_after(&token);
  order_before(&token);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

}  // namespace cuda_on_host
