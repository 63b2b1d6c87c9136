// A fiber: a stack that a thread can switch to and back from. The sanitizers are told of each switch.
#pragma once

#include <cstddef>

namespace cuda_on_host {

class Fiber {
 public:
  // Its own stack, on which `entry` starts at the first switch; it never returns.
  explicit Fiber(void (*entry)());
  // The stack of the thread that runs now.
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Called on `from`, returns when it is switched to again.
  static void switch_stacks(Fiber& from, Fiber& to);
  // What `entry` calls first. `from`: who switched to it.
  static void arrive(Fiber& from);

 private:
  std::byte* stack_ = nullptr;
  void* stack_pointer_ = nullptr;
  void* tsan_ = nullptr;        // ThreadSanitizer's name for it; null: it has no identity of its own
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  const void* bottom_ = nullptr;
  std::size_t bytes_ = 0;
};

// Whether ThreadSanitizer sees each fiber as a thread.
bool fibers_have_identities();
void order_before(void* token);
void order_after(void* token);

[[noreturn]] void give_up(const char* mistake);

// Memory that ends at a guard page: the dynamic shared memory of a block.
class GuardedMemory {
 public:
  GuardedMemory() = default;
  ~GuardedMemory() { unmap(); }
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;
  std::byte* take(std::size_t bytes);  // in place of what was taken before

 private:
  void unmap();
  std::byte* mapping_ = nullptr;
  std::size_t body_ = 0;
};

}  // namespace cuda_on_host
