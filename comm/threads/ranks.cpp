#include "comm/threads/ranks.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "comm/async_communicator.hpp"
#include "core/error.hpp"
#include "core/memory.hpp"
#include "core/philox.hpp"

namespace muster {
namespace {

using Bytes = std::vector<std::byte>;

// Where all the messages of a run lie between their sending and their receipt.
class Hub {
 public:
  explicit Hub(int ranks) : left_(static_cast<std::size_t>(ranks)) {}

  struct Address {
    int communicator, from, to, tag;  // ranks of that communicator
    auto operator<=>(const Address&) const = default;
  };

  void put(const Address& address, std::span<const std::byte> bytes) {
    const std::lock_guard lock(mutex_);
    mail_[address].emplace_back(bytes.begin(), bytes.end());
  }

  // Copies the next message into `bytes`; false when there is none yet. `sender` is its rank in the run.
  bool take(const Address& address, int sender, std::span<std::byte> bytes) {
    const std::lock_guard lock(mutex_);
    const auto found = mail_.find(address);
    if (found == mail_.end()) {
      check_present(sender);
      return false;
    }
    const Bytes& message = found->second.front();
    if (message.size() != bytes.size())
      throw Defect(fmt::format("rank {} sent {} bytes where rank {} expects {}", address.from, message.size(),
                               address.to, bytes.size()));
    if (!bytes.empty()) std::memcpy(bytes.data(), message.data(), bytes.size());
    found->second.pop_front();
    if (found->second.empty()) mail_.erase(found);
    return true;
  }

  // The rank wants no more messages and sends none.
  void leave(int rank) {
    {
      const std::lock_guard lock(mutex_);
      left_[static_cast<std::size_t>(rank)] = true;
    }
    changed_.notify_all();
  }

  struct Part {
    int communicator;
    int rank;
    std::vector<int> members;  // by their ranks in the run
  };

  // All members of `communicator` come together, like MPI_Comm_split.
  Part split(int communicator, int rank, const std::vector<int>& members, int color, int key) {
    std::unique_lock lock(mutex_);
    Meeting& meeting = meetings_[communicator];
    const int round = meeting.round;
    meeting.entries.emplace_back(color, key, rank);
    if (meeting.entries.size() == members.size()) {
      std::ranges::sort(meeting.entries);
      meeting.result = std::exchange(meeting.entries, {});
      meeting.first_part = next_communicator_;
      next_communicator_ += static_cast<int>(members.size());
      ++meeting.round;
      changed_.notify_all();
    }
    changed_.wait(lock, [&] {
      if (meeting.round != round) return true;
      for (const int member : members) check_present(member);
      return false;
    });
    // A part is numbered after the place of its first entry, so that parts do not collide.
    Part part{0, 0, {}};
    for (std::size_t i = 0; i < meeting.result.size(); ++i) {
      const auto& [its_color, its_key, its_rank] = meeting.result[i];
      if (its_color != color) continue;
      if (part.members.empty()) part.communicator = meeting.first_part + static_cast<int>(i);
      if (its_rank == rank) part.rank = static_cast<int>(part.members.size());
      part.members.push_back(members[static_cast<std::size_t>(its_rank)]);
    }
    return part;
  }

 private:
  struct Meeting {
    int round = 0;
    std::vector<std::tuple<int, int, int>> entries;  // color, key, rank
    std::vector<std::tuple<int, int, int>> result;   // of the round before, sorted
    int first_part = 0;
  };

  void check_present(int rank) const {
    if (left_[static_cast<std::size_t>(rank)]) throw PeerError(fmt::format("rank {} has left the job", rank));
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Address, std::deque<Bytes>> mail_;
  std::vector<bool> left_;
  std::map<int, Meeting> meetings_;
  int next_communicator_ = 1;
};

// A message sent is copied at once, so that no rank ever touches the memory of one that has failed.
class HubTransport final : public Transport {
 public:
  HubTransport(std::shared_ptr<Hub> hub, Hub::Part part) : hub_(std::move(hub)), part_(std::move(part)) {}

  int rank() const override { return part_.rank; }
  int size() const override { return static_cast<int>(part_.members.size()); }
  int local_rank() const override { return rank(); }
  int local_size() const override { return size(); }

  void send(int peer, int tag, std::span<const std::byte> bytes, Counter&) override {
    hub_->put({part_.communicator, rank(), peer, tag}, bytes);
  }

  void receive(int peer, int tag, std::span<std::byte> bytes, Counter& open) override {
    ++open;
    expected_.push_back({{part_.communicator, peer, rank(), tag}, bytes, &open});
  }

  bool poll() override {
    bool moved = false;
    for (auto next = expected_.begin(); next != expected_.end();) {
      const int sender = part_.members[static_cast<std::size_t>(next->address.from)];
      if (hub_->take(next->address, sender, next->bytes)) {
        --*next->open;
        next = expected_.erase(next);
        moved = true;
      } else {
        ++next;
      }
    }
    return moved;
  }

  void abandon() override { expected_.clear(); }

  std::unique_ptr<Transport> split(int color, int key) override {
    return std::make_unique<HubTransport>(hub_,
                                          hub_->split(part_.communicator, rank(), part_.members, color, key));
  }

  [[noreturn]] void abort(int exit_code) override {
    std::fflush(nullptr);
    std::_Exit(exit_code);
  }

 private:
  struct Expected {
    Hub::Address address;
    std::span<std::byte> bytes;
    Counter* open;
  };

  std::shared_ptr<Hub> hub_;
  Hub::Part part_;
  std::deque<Expected> expected_;
};

// Pauses of 0 to 500 us, every fourth time.
std::function<void()> random_delay(std::uint64_t seed, int rank) {
  if (seed == 0) return {};
  auto drawn = std::make_shared<std::uint32_t>(0);  // touched by the rank's progress thread only
  return [seed, rank, drawn] {
    const Philox4 random = philox({(*drawn)++, static_cast<std::uint32_t>(rank), 0, 0}, seed);
    if (random[0] % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random[1] % 500));
  };
}

}  // namespace

void run_ranks(int ranks, const std::function<void(Communicator&)>& body, std::uint64_t delays) {
  check(ranks > 0, "a job without ranks");
  const auto hub = std::make_shared<Hub>(ranks);
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<int> everyone(static_cast<std::size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) everyone[static_cast<std::size_t>(rank)] = rank;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      MemoryAccount account;
      try {
        AsyncCommunicator comm(std::make_shared<ProgressThread>(),
                               std::make_unique<HubTransport>(hub, Hub::Part{0, rank, everyone}), account,
                               random_delay(delays, rank));
        body(comm);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
      }
      hub->leave(rank);
    });
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace muster
