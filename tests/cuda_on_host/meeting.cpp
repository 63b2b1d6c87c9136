#include "tests/cuda_on_host/meeting.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

#include "tests/cuda_on_host/host_cuda.hpp"

namespace cuda_on_host {
namespace {

constexpr std::size_t shown_bytes = 256 << 10, mail_bytes = 64 << 10;

struct flock lock_of(int rank) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = rank;
  lock.l_len = 1;
  return lock;
}

std::string text(const Call& call) {
  return fmt::format("{}({} bytes, type {}, op {}, root {})", call.name.data(), call.bytes, call.type,
                     call.op, call.root);
}

}  // namespace

struct Meeting::Mail {
  std::atomic<std::uint32_t> full;  // bytes that wait to be taken
  std::uint64_t left;               // of the message, these included
  alignas(64) std::array<std::byte, mail_bytes> data;
};

// Starts as zeroes. One mapping is 2 MiB of slots and 4 MiB of mail, of which only what is used takes memory.
struct Meeting::Shared {
  std::atomic<int> came, finished, given_up;
  std::array<std::atomic<std::uint64_t>, most_ranks> steps;
  std::array<Call, most_ranks> calls;
  alignas(64) std::array<std::array<std::byte, shown_bytes>, most_ranks> shown;
  std::array<std::array<Mail, most_ranks>, most_ranks> mail;  // from, to
};

Meeting::Meeting(std::string name, int ranks, int rank)
    : name_(std::move(name)),
      ranks_(ranks),
      rank_(rank),
      file_(shm_open(name_.c_str(), O_CREAT | O_RDWR, 0600)) {
  if (file_ < 0 || ftruncate(file_, sizeof(Shared)) != 0) throw ncclSystemError;
  void* mapped = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
  if (mapped == MAP_FAILED) throw ncclSystemError;
  shared_ = static_cast<Shared*>(mapped);
  struct flock lock = lock_of(rank_);
  if (fcntl(file_, F_OFD_SETLK, &lock) != 0) throw ncclInvalidUsage;  // the rank is there already
  ++shared_->came;
}

Meeting::~Meeting() {
  shm_unlink(name_.c_str());
  if (shared_ != nullptr) munmap(shared_, sizeof(Shared));
  if (file_ >= 0) close(file_);
}

// When all have come nobody needs the name any more, and nothing is left behind however they end.
bool Meeting::all_came() const {
  if (shared_->came < ranks_) return false;
  shm_unlink(name_.c_str());
  return true;
}

void Meeting::finish() { ++shared_->finished; }
bool Meeting::all_finished() const { return shared_->finished == ranks_; }

void Meeting::look() const {
  if (shared_->given_up != 0) throw ncclRemoteError;
  if (shared_->came < ranks_) return;
  for (int peer = 0; peer < ranks_; ++peer) {
    struct flock lock = lock_of(peer);
    if (peer == rank_ || fcntl(file_, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK) continue;
    if (all_finished()) return;
    throw ncclRemoteError;
  }
}

void Meeting::give_up() {
  given_up_ = true;
  shared_->given_up = 1;
}

void Meeting::wait_to_be_given_up() const {
  while (!given_up_) std::this_thread::sleep_for(std::chrono::microseconds(200));
}

void Meeting::pause() {
  if (given_up_) throw ncclInvalidUsage;
  if (shared_->given_up != 0) throw ncclRemoteError;
  if (++pauses_ % 128 == 0) look();
  if (pauses_ % 16 != 0)
    std::this_thread::yield();
  else
    std::this_thread::sleep_for(std::chrono::microseconds(50));
}

void Meeting::barrier() {
  const Hidden hidden;
  shared_->steps[static_cast<std::size_t>(rank_)] = ++steps_;
  for (int peer = 0; peer < ranks_; ++peer)
    while (shared_->steps[static_cast<std::size_t>(peer)] < steps_) pause();
}

void Meeting::refuse(const std::string& why) {
  const Hidden hidden;
  fmt::print(stderr, "NCCL on the host: {}\n", why);
  shared_->given_up = 1;
  throw ncclInvalidUsage;
}

void Meeting::agree(const Call& call) {
  const Hidden hidden;
  shared_->calls[static_cast<std::size_t>(rank_)] = call;
  barrier();
  for (int peer = 0; peer < ranks_; ++peer)
    if (const Call& other = shared_->calls[static_cast<std::size_t>(peer)]; other != call)
      refuse(fmt::format("rank {} calls {}, rank {} calls {}", rank_, text(call), peer, text(other)));
  barrier();
}

void Meeting::show(std::span<const std::byte> mine, std::uint64_t bytes,
                   const std::function<void(std::uint64_t, std::uint64_t, const Shown&)>& use) {
  Shown shown{};
  for (std::size_t r = 0; r < shown.size(); ++r) shown[r] = shared_->shown[r].data();
  for (std::uint64_t offset = 0; offset < bytes; offset += shown_bytes) {
    const std::uint64_t part = std::min<std::uint64_t>(shown_bytes, bytes - offset);
    if (!mine.empty())
      std::memcpy(shared_->shown[static_cast<std::size_t>(rank_)].data(), mine.data() + offset, part);
    barrier();
    use(offset, part, shown);
    barrier();
  }
}

void Meeting::exchange(std::vector<Transfer> transfers) {
  while (!transfers.empty()) {
    bool moved = false;
    for (std::size_t i = 0; i < transfers.size(); ++i) {
      const auto same_way = [&](const Transfer& other) {
        return other.peer == transfers[i].peer && other.outgoing == transfers[i].outgoing;
      };
      // Messages one way are taken in order.
      if (std::ranges::find_if(transfers, same_way) - transfers.begin() == static_cast<std::ptrdiff_t>(i))
        moved = move(transfers[i]) || moved;
    }
    std::erase_if(transfers, [](const Transfer& transfer) { return transfer.left.empty(); });
    if (moved || transfers.empty()) continue;
    const Hidden hidden;
    for (const Transfer& transfer : transfers) look_for_collective(transfer);
    pause();
  }
}

Meeting::Mail& Meeting::mail_of(const Transfer& transfer) const {
  const auto self = static_cast<std::size_t>(rank_), peer = static_cast<std::size_t>(transfer.peer);
  return transfer.outgoing ? shared_->mail[self][peer] : shared_->mail[peer][self];
}

bool Meeting::move(Transfer& transfer) {
  Mail& mail = mail_of(transfer);
  std::uint32_t waiting = 0;
  {
    const Hidden hidden;
    waiting = mail.full;
    if ((waiting == 0) != transfer.outgoing) return false;
    if (!transfer.outgoing && mail.left != transfer.left.size())
      refuse(fmt::format("rank {} sends {} bytes where rank {} receives {}", transfer.peer, mail.left, rank_,
                         transfer.left.size()));
    if (transfer.outgoing) mail.left = transfer.left.size();
  }
  const auto part =
      transfer.left.first(transfer.outgoing ? std::min(transfer.left.size(), mail_bytes) : waiting);
  if (transfer.outgoing)
    std::memcpy(mail.data.data(), part.data(), part.size());
  else
    std::memcpy(part.data(), mail.data.data(), part.size());
  transfer.left = transfer.left.subspan(part.size());
  const Hidden hidden;
  mail.full = transfer.outgoing ? static_cast<std::uint32_t>(part.size()) : 0;
  return true;
}

// A peer at a barrier that this rank has not reached is in a collective, and waits for this rank as this waits for it;
// unless it did its part of the messages before.
void Meeting::look_for_collective(const Transfer& transfer) {
  const auto peer = static_cast<std::size_t>(transfer.peer);
  if (shared_->steps[peer] <= steps_ || (mail_of(transfer).full == 0) == transfer.outgoing) return;
  refuse(fmt::format("rank {} sends to or receives from rank {}, which calls {}", rank_, peer,
                     text(shared_->calls[peer])));
}

}  // namespace cuda_on_host
