#include "comm/mpi/transport.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>

#include "core/error.hpp"

namespace muster {
namespace {

// Messages travel in chunks: MPI counts in int, and the end of a chunk is the sign of life by which the
// progress thread knows that data flows, so that it polls often while it does.
constexpr std::size_t chunk_bytes = 8 << 20;

// Calls body(offset, bytes) for each chunk; once for a message without bytes.
template <class Body>
void for_each_chunk(std::size_t size, Body&& body) {
  std::size_t offset = 0;
  do {
    const std::size_t bytes = std::min(chunk_bytes, size - offset);
    body(offset, static_cast<int>(bytes));
    offset += bytes;
  } while (offset < size);
}

}  // namespace

void check_mpi(int result, const char* call) {
  if (result == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  if (MPI_Error_string(result, text, &length) != MPI_SUCCESS) length = 0;
  throw PeerError(fmt::format("{} failed: {}", call, std::string(text, static_cast<std::size_t>(length))));
}

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
  for_each_chunk(bytes.size(), [&](std::size_t offset, int count) {
    MPI_Request request;
    check_mpi(MPI_Isend(bytes.data() + offset, count, MPI_BYTE, peer, tag, comm_, &request), "MPI_Isend");
    ++open;
    requests_.push_back(request);
    messages_.push_back({&open, -1});
  });
}

void MpiTransport::receive(int peer, int tag, std::span<std::byte> bytes, Counter& open) {
  for_each_chunk(bytes.size(), [&](std::size_t offset, int count) {
    MPI_Request request;
    check_mpi(MPI_Irecv(bytes.data() + offset, count, MPI_BYTE, peer, tag, comm_, &request), "MPI_Irecv");
    ++open;
    requests_.push_back(request);
    messages_.push_back({&open, count});
  });
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
    complete(messages_[static_cast<std::size_t>(finished_[static_cast<std::size_t>(i)])], status);
  }
  // Closes the gaps from the last: what moves into one is then still under way.
  finished_.resize(static_cast<std::size_t>(count));
  std::ranges::sort(finished_, std::greater<>());
  for (const int position : finished_) {
    const auto gap = static_cast<std::size_t>(position);
    requests_[gap] = requests_.back();
    messages_[gap] = messages_.back();
    requests_.pop_back();
    messages_.pop_back();
  }
  return true;
}

void MpiTransport::complete(const Message& message, const MPI_Status& status) const {
  if (status.MPI_ERROR != MPI_SUCCESS) {
    int kind = MPI_SUCCESS;
    MPI_Error_class(status.MPI_ERROR, &kind);
    if (kind == MPI_ERR_TRUNCATE)
      throw Defect(fmt::format("rank {} sent more bytes than rank {} expects", status.MPI_SOURCE, rank_));
    check_mpi(status.MPI_ERROR, message.expected < 0 ? "MPI_Isend" : "MPI_Irecv");
  }
  if (message.expected >= 0) {
    int received = 0;
    check_mpi(MPI_Get_count(&status, MPI_BYTE, &received), "MPI_Get_count");
    if (received != message.expected)
      throw Defect(fmt::format("rank {} sent {} bytes where rank {} expects {}", status.MPI_SOURCE, received,
                               rank_, message.expected));
  }
  --*message.open;
}

void MpiTransport::abandon() {
  // Not checked: it follows a failure. A message sent cannot be taken back, a receive can.
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] == MPI_REQUEST_NULL) continue;
    if (messages_[i].expected >= 0) MPI_Cancel(&requests_[i]);
    MPI_Request_free(&requests_[i]);
  }
  requests_.clear();
  messages_.clear();
}

std::unique_ptr<Transport> MpiTransport::split(int color, int key) {
  MPI_Comm part;
  check_mpi(MPI_Comm_split(comm_, color, key, &part), "MPI_Comm_split");
  return std::make_unique<MpiTransport>(part);
}

void MpiTransport::abort(int exit_code) {
  std::fflush(nullptr);
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

}  // namespace muster
