#include "comm/mpi/transport.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <list>
#include <mpi.h>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "core/error.hpp"

namespace muster {
namespace {

// MPI counts in int. The end of a chunk is also the sign of life by which the progress thread knows that data
// flows, so that it polls often while it does: hence small chunks, and few at a time, since MPI shares the
// way among all that are started. Each way between two hosts at 1 Gbit/s, two at a time reach 114 MB/s, four 80, eight 71.
constexpr std::size_t chunk_bytes = 1 << 20;
constexpr int chunks_within_host = 4, chunks_between_hosts = 2;

// MPI_Abort asks the launcher to end the job, and waits; where a rank is stopped, or a host does not answer, for ever.
void end_at_last(int exit_code) {
  static constexpr std::chrono::seconds time_for_the_launcher{5};
  try {
    std::thread([exit_code] {
      std::this_thread::sleep_for(time_for_the_launcher);
      std::_Exit(exit_code);
    }).detach();
  } catch (const std::system_error&) {  // the system grants no more threads
  }
}

class MpiTransport final : public Transport {
 public:
  // Takes over `comm`. Collective over it.
  explicit MpiTransport(MPI_Comm comm);
  ~MpiTransport() override;
  MpiTransport(const MpiTransport&) = delete;
  MpiTransport& operator=(const MpiTransport&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int local_rank() const override { return local_rank_; }
  int local_size() const override { return local_size_; }
  void send(int peer, int tag, std::span<const std::byte> bytes, Counter& open) override;
  void receive(int peer, int tag, std::span<std::byte> bytes, Counter& open) override;
  bool poll() override;
  void abandon() override;
  std::unique_ptr<Transport> split(int color, int key) override;
  [[noreturn]] void abort(int exit_code) override;

 private:
  // A message travels in chunks, a few of them at a time.
  struct Message {
    bool outgoing;
    int peer;
    int tag;
    std::byte* data;
    std::size_t size;
    Counter* open;
    std::size_t started = 0;  // bytes
    int chunks = 0;           // under way
    bool ended = false;
  };
  struct Chunk {
    Message* message;
    int bytes;
  };
  void start(Message message);
  void start_chunks(Message& message);
  void check_chunk(const Chunk& chunk, const MPI_Status& status) const;

  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 1;
  int local_rank_ = 0;
  int local_size_ = 1;
  std::list<Message> messages_;
  // Chunks under way: the same positions in both, kept dense.
  std::vector<MPI_Request> requests_;
  std::vector<Chunk> chunks_;
  // What MPI_Testsome writes.
  std::vector<int> finished_;
  std::vector<MPI_Status> statuses_;
};

MpiTransport::MpiTransport(MPI_Comm comm) : comm_(comm) {
  check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
  MPI_Comm local;
  check_mpi(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &local),
            "MPI_Comm_split_type");
  check_mpi(MPI_Comm_rank(local, &local_rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(local, &local_size_), "MPI_Comm_size");
  check_mpi(MPI_Comm_free(&local), "MPI_Comm_free");
}

// Not checked: MPI is about to end, and a destructor has nobody to tell.
MpiTransport::~MpiTransport() { MPI_Comm_free(&comm_); }

void MpiTransport::send(int peer, int tag, std::span<const std::byte> bytes, Counter& open) {
  // MPI_Isend only reads; the const is put back there.
  start({true, peer, tag, const_cast<std::byte*>(bytes.data()), bytes.size(), &open});
}

void MpiTransport::receive(int peer, int tag, std::span<std::byte> bytes, Counter& open) {
  start({false, peer, tag, bytes.data(), bytes.size(), &open});
}

void MpiTransport::start(Message message) {
  ++*message.open;
  start_chunks(messages_.emplace_back(message));
}

// Both ends start the chunks of a message in order; a message without bytes is one empty chunk.
void MpiTransport::start_chunks(Message& message) {
  const int at_a_time = local_size_ == size_ ? chunks_within_host : chunks_between_hosts;
  while (message.chunks < at_a_time && (message.started < message.size || message.size == 0)) {
    const auto bytes = static_cast<int>(std::min(chunk_bytes, message.size - message.started));
    std::byte* const data = message.data + message.started;
    MPI_Request request;
    if (message.outgoing)
      check_mpi(MPI_Isend(data, bytes, MPI_BYTE, message.peer, message.tag, comm_, &request), "MPI_Isend");
    else
      check_mpi(MPI_Irecv(data, bytes, MPI_BYTE, message.peer, message.tag, comm_, &request), "MPI_Irecv");
    requests_.push_back(request);
    chunks_.push_back({&message, bytes});
    ++message.chunks;
    message.started += static_cast<std::size_t>(bytes);
    if (bytes == 0) break;
  }
}

bool MpiTransport::poll() {
  int count = 0;
  if (requests_.empty()) {
    // MPI_Testsome of nothing returns at once; this lets MPI move what it has queued.
    int found = 0;
    check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm_, &found, MPI_STATUS_IGNORE), "MPI_Iprobe");
    return false;
  }
  finished_.resize(requests_.size());
  statuses_.resize(requests_.size());
  const int result = MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count,
                                  finished_.data(), statuses_.data());
  if (result != MPI_ERR_IN_STATUS) check_mpi(result, "MPI_Testsome");
  if (count == MPI_UNDEFINED || count == 0) return false;
  for (int i = 0; i < count; ++i) {
    MPI_Status& status = statuses_[static_cast<std::size_t>(i)];
    if (result == MPI_SUCCESS) status.MPI_ERROR = MPI_SUCCESS;  // MPI sets it only after a failure
    check_chunk(chunks_[static_cast<std::size_t>(finished_[static_cast<std::size_t>(i)])], status);
  }
  // Closes the gaps from the last: what moves into one is then still under way.
  finished_.resize(static_cast<std::size_t>(count));
  std::ranges::sort(finished_, std::greater<>());
  std::vector<Message*> touched;
  for (const int position : finished_) {
    const auto gap = static_cast<std::size_t>(position);
    touched.push_back(chunks_[gap].message);
    requests_[gap] = requests_.back();
    chunks_[gap] = chunks_.back();
    requests_.pop_back();
    chunks_.pop_back();
  }
  for (Message* message : touched) {
    --message->chunks;
    if (message->started < message->size) {
      start_chunks(*message);
    } else if (message->chunks == 0) {
      --*message->open;
      message->ended = true;
    }
  }
  messages_.remove_if([](const Message& message) { return message.ended; });
  return true;
}

void MpiTransport::check_chunk(const Chunk& chunk, const MPI_Status& status) const {
  if (status.MPI_ERROR != MPI_SUCCESS) {
    int kind = MPI_SUCCESS;
    MPI_Error_class(status.MPI_ERROR, &kind);
    if (kind == MPI_ERR_TRUNCATE)
      throw Defect(fmt::format("rank {} sent more bytes than rank {} expects", status.MPI_SOURCE, rank_));
    check_mpi(status.MPI_ERROR, chunk.message->outgoing ? "MPI_Isend" : "MPI_Irecv");
  }
  if (chunk.message->outgoing) return;
  int received = 0;
  check_mpi(MPI_Get_count(&status, MPI_BYTE, &received), "MPI_Get_count");
  if (received != chunk.bytes)
    throw Defect(fmt::format("rank {} sent {} bytes where rank {} expects {}", status.MPI_SOURCE, received,
                             rank_, chunk.bytes));
}

void MpiTransport::abandon() {
  // Not checked: it follows a failure. What is sent cannot be taken back, a receive can.
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] == MPI_REQUEST_NULL) continue;
    if (!chunks_[i].message->outgoing) MPI_Cancel(&requests_[i]);
    MPI_Request_free(&requests_[i]);
  }
  requests_.clear();
  chunks_.clear();
  messages_.clear();
}

std::unique_ptr<Transport> MpiTransport::split(int color, int key) {
  MPI_Comm part;
  check_mpi(MPI_Comm_split(comm_, color, key, &part), "MPI_Comm_split");
  return std::make_unique<MpiTransport>(part);
}

void MpiTransport::abort(int exit_code) {
  end_at_last(exit_code);
  std::fflush(nullptr);
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

}  // namespace

void check_mpi(int result, const char* call) {
  if (result == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  if (MPI_Error_string(result, text, &length) != MPI_SUCCESS) length = 0;
  throw PeerError(fmt::format("{} failed: {}", call, std::string(text, static_cast<std::size_t>(length))));
}

std::unique_ptr<Transport> mpi_world_transport() {
  MPI_Comm own;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &own), "MPI_Comm_dup");
  return std::make_unique<MpiTransport>(own);
}

}  // namespace muster
