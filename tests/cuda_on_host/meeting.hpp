// Where the ranks of one NCCL communicator meet: shared memory, found by the name in the unique id. Ranks are
// processes, or threads of one, each with a mapping of its own.
//
// Every rank locks a byte of the memory's file for as long as it lives; the system gives the lock back however the
// rank ends. So a rank that waits notices when another is gone.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <nccl.h>
#include <span>
#include <string>
#include <vector>

namespace cuda_on_host {

// What a rank asks for; all ranks must ask for the same.
struct Call {
  std::array<char, 16> name{};
  std::uint64_t bytes = 0;
  int type = 0;
  int op = 0;
  int root = 0;
  bool operator==(const Call&) const = default;
};

// A message of a group, on its way.
struct Transfer {
  bool outgoing;
  int peer;
  std::span<std::byte> left;
};

class Meeting {
 public:
  static constexpr int most_ranks = 8;

  // Comes to the meeting; waits for nobody. Throws ncclResult_t, as all below.
  Meeting(std::string name, int ranks, int rank);
  ~Meeting();
  Meeting(const Meeting&) = delete;
  Meeting& operator=(const Meeting&) = delete;

  int rank() const { return rank_; }
  int ranks() const { return ranks_; }

  bool all_came() const;
  // Has no more to do here. The others may: nobody leaves before all have said so.
  void finish();
  bool all_finished() const;
  // Throws when another rank is gone.
  void look() const;
  // Ends the waiting of this rank, and of all others once they notice.
  void give_up();
  void wait_to_be_given_up() const;

  // Work of a stream, on its thread. All ranks' calls are compared before anything else happens.
  void agree(const Call& call);
  // Each rank shows `mine` to all, part by part: use(offset, shown by rank) sees the parts of all ranks.
  using Shown = std::array<const std::byte*, most_ranks>;
  void show(std::span<const std::byte> mine, std::uint64_t bytes,
            const std::function<void(std::uint64_t offset, std::uint64_t bytes, const Shown&)>& use);
  void exchange(std::vector<Transfer> transfers);

 private:
  struct Mail;
  struct Shared;
  Mail& mail_of(const Transfer& transfer) const;
  void barrier();
  void pause();
  bool move(Transfer& transfer);
  void look_for_collective(const Transfer& transfer);
  [[noreturn]] void refuse(const std::string& why);

  std::string name_;
  int ranks_;
  int rank_;
  int file_ = -1;
  Shared* shared_ = nullptr;
  std::uint64_t steps_ = 0;  // barriers passed; touched by the stream's thread only, as is
  unsigned pauses_ = 0;
  std::atomic<bool> given_up_ = false;
};

}  // namespace cuda_on_host
