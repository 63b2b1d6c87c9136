// NCCL on the host: the functions that Muster calls, between ranks that meet in shared memory.
//
// Communicators do not block, and take that at its word: a group is on its stream only after the caller has polled,
// as with NCCL when a group has to make connections. Whoever records an event before sees it complete too early.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <ctime>
#include <fmt/format.h>
#include <functional>
#include <memory>
#include <nccl.h>
#include <string_view>
#include <unistd.h>
#include <utility>
#include <vector>

#include "tests/cuda_on_host/host_cuda.hpp"
#include "tests/cuda_on_host/meeting.hpp"

namespace cuda_on_host {
namespace {

// A rank's communicator; work on streams shares it, so that it outlives ncclComm.
struct Member {
  Member(const std::string& name, int ranks, int rank) : meeting(name, ranks, rank) {}
  Meeting meeting;
  std::atomic<int> result = ncclSuccess;  // of work on streams
};

// What one call asks of a communicator: a collective, or a message of a group.
struct Request {
  ncclComm_t comm;
  cudaStream_t stream;
  std::function<void(Meeting&)> collective;
  std::vector<Transfer> transfers;
};

thread_local int open_groups = 0;
thread_local std::vector<Request> grouped;

std::size_t width_of(ncclDataType_t type) {
  switch (type) {
    case ncclUint8:
      return 1;
    case ncclFloat32:
      return 4;
    case ncclFloat64:
    case ncclInt64:
      return 8;
    default:
      return 0;  // Muster sends no others
  }
}

Call call_of(std::string_view name, std::size_t bytes, ncclDataType_t type, int op = 0, int root = 0) {
  Call call{{}, bytes, type, op, root};
  std::ranges::copy(name, call.name.begin());
  return call;
}

template <class T>
void combine_as(const Meeting::Shown& shown, int ranks, ncclRedOp_t op, std::byte* to, std::uint64_t bytes) {
  const auto value = [&](int rank, std::uint64_t i) {
    T read;
    std::memcpy(&read, shown[static_cast<std::size_t>(rank)] + i * sizeof(T), sizeof(T));
    return read;
  };
  for (std::uint64_t i = 0; i < bytes / sizeof(T); ++i) {
    T result = value(0, i);
    for (int r = 1; r < ranks; ++r)
      result = op == ncclSum ? result + value(r, i) : std::max(result, value(r, i));
    std::memcpy(to + i * sizeof(T), &result, sizeof(T));
  }
}

void combine(const Meeting::Shown& shown, int ranks, ncclDataType_t type, ncclRedOp_t op, std::byte* to,
             std::uint64_t bytes) {
  if (type == ncclFloat32) return combine_as<float>(shown, ranks, op, to, bytes);
  if (type == ncclFloat64) return combine_as<double>(shown, ranks, op, to, bytes);
  if (type == ncclInt64) return combine_as<std::int64_t>(shown, ranks, op, to, bytes);
  throw ncclInvalidArgument;
}

std::span<const std::byte> bytes_at(const void* data, std::size_t bytes) {
  return {static_cast<const std::byte*>(data), bytes};
}
std::byte* byte_at(void* data, std::size_t offset) { return static_cast<std::byte*>(data) + offset; }

}  // namespace
}  // namespace cuda_on_host

using namespace cuda_on_host;

struct ncclComm {
  std::shared_ptr<Member> member;
  std::atomic<bool> came = false, finishing = false;
  std::vector<Request> waiting;  // groups that the next poll puts on their streams
};

namespace cuda_on_host {
namespace {

// Runs on a stream. What fails does not end: like NCCL's kernels it spins until the rank aborts its communicator.
void run(Member& member, const std::function<void(Meeting&)>& work) {
  {
    const Hidden hidden;
    if (member.result != ncclSuccess) return member.meeting.wait_to_be_given_up();
  }
  try {
    work(member.meeting);
  } catch (const ncclResult_t failure) {
    const Hidden hidden;
    member.result = failure;
    member.meeting.wait_to_be_given_up();
  }
}

ncclResult_t launch(std::vector<Request> requests) {
  for (Request& request : requests) {
    auto work = std::move(request.collective);
    if (!work)
      work = [transfers = std::move(request.transfers)](Meeting& meeting) { meeting.exchange(transfers); };
    const cudaError_t error = enqueue(
        request.stream, [member = request.comm->member, work = std::move(work)] { run(*member, work); });
    if (error != cudaSuccess) return ncclUnhandledCudaError;
  }
  return ncclSuccess;
}

// NCCL's kernels reach the memory of devices, and pinned host memory.
bool reachable(const void* data) {
  cudaPointerAttributes attributes{};
  return cudaPointerGetAttributes(&attributes, data) == cudaSuccess &&
         attributes.type != cudaMemoryTypeUnregistered;
}

// The messages of a group between the same ranks on the same stream move together.
ncclResult_t submit(const char* function, const void* memory, Request request) {
  const Hidden hidden;
  if (const int error = injected_failure(function, ncclSystemError)) return static_cast<ncclResult_t>(error);
  if (open_groups == 0 || !request.comm->came) return ncclInvalidUsage;
  if (memory != nullptr && !reachable(memory)) return ncclInvalidArgument;
  for (Request& earlier : grouped) {
    if (request.transfers.empty() || earlier.transfers.empty()) continue;
    if (earlier.comm != request.comm || earlier.stream != request.stream) continue;
    earlier.transfers.push_back(request.transfers.front());
    return ncclSuccess;
  }
  grouped.push_back(std::move(request));
  return ncclSuccess;
}

ncclResult_t submit_collective(const char* function, const void* memory, ncclComm_t comm, cudaStream_t stream,
                               std::function<void(Meeting&)> collective) {
  return submit(function, memory, {comm, stream, std::move(collective), {}});
}

ncclResult_t submit_message(const char* function, bool outgoing, void* data, std::size_t bytes, int peer,
                            ncclComm_t comm, cudaStream_t stream) {
  return submit(function, data,
                {comm, stream, {}, {{outgoing, peer, {static_cast<std::byte*>(data), bytes}}}});
}

// What ncclCommGetAsyncError says.
ncclResult_t poll(ncclComm& comm) {
  Member& member = *comm.member;
  if (const int failed = member.result; failed != ncclSuccess) return static_cast<ncclResult_t>(failed);
  if (!comm.waiting.empty()) {
    const ncclResult_t launched = launch(std::exchange(comm.waiting, {}));
    return launched == ncclSuccess ? ncclInProgress : launched;
  }
  if (!comm.came) comm.came = member.meeting.all_came();
  if (comm.finishing && member.meeting.all_finished()) return ncclSuccess;
  try {
    member.meeting.look();
  } catch (const ncclResult_t failure) {
    return failure;
  }
  return comm.came && !comm.finishing ? ncclSuccess : ncclInProgress;
}

}  // namespace
}  // namespace cuda_on_host

extern "C" {

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclSystemError:
      return "unhandled system error";
    case ncclInvalidArgument:
      return "invalid argument";
    case ncclInvalidUsage:
      return "invalid usage";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    case ncclInProgress:
      return "NCCL operation in progress";
    default:
      return "unhandled CUDA error";
  }
}

const char* ncclGetLastError(ncclComm_t) { return ""; }

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static std::atomic<int> made = 0;
  const auto end = fmt::format_to_n(id->internal, sizeof(id->internal) - 1, "/nccl-on-host-{}-{}-{}",
                                    getpid(), time(nullptr), made++);
  *end.out = '\0';
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  const Hidden hidden;
  if (const int error = injected_failure("ncclCommInitRankConfig", ncclSystemError))
    return static_cast<ncclResult_t>(error);
  if (config == nullptr || config->blocking != 0 || ranks > Meeting::most_ranks || rank < 0 || rank >= ranks)
    return ncclInvalidArgument;
  try {
    auto made = std::make_unique<ncclComm>();
    made->member = std::make_shared<Member>(id.internal, ranks, rank);
    *comm = made.release();
  } catch (const ncclResult_t failure) {
    return failure;
  }
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* result) {
  const Hidden hidden;
  *result = poll(*comm);
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  const Hidden hidden;
  comm->finishing = true;
  comm->member->meeting.finish();
  return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  const Hidden hidden;
  const std::unique_ptr<ncclComm> owned(comm);
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  const Hidden hidden;
  comm->member->meeting.give_up();
  return ncclCommDestroy(comm);
}

ncclResult_t ncclGroupStart() {
  ++open_groups;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  const Hidden hidden;
  if (open_groups == 0) return ncclInvalidUsage;
  if (--open_groups > 0) return ncclSuccess;
  for (Request& request : std::exchange(grouped, {})) {
    ncclComm& comm = *request.comm;
    comm.waiting.push_back(std::move(request));
  }
  return ncclInProgress;
}

ncclResult_t ncclAllReduce(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  const std::size_t bytes = count * width_of(type);
  return submit_collective("ncclAllReduce", to, comm, stream, [=](Meeting& meeting) {
    meeting.agree(call_of("AllReduce", bytes, type, op));
    meeting.show(bytes_at(from, bytes), bytes, [&](auto offset, auto part, const auto& shown) {
      combine(shown, meeting.ranks(), type, op, byte_at(to, offset), part);
    });
  });
}

ncclResult_t ncclReduce(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t op,
                        int root, ncclComm_t comm, cudaStream_t stream) {
  const std::size_t bytes = count * width_of(type);
  return submit_collective("ncclReduce", to, comm, stream, [=](Meeting& meeting) {
    meeting.agree(call_of("Reduce", bytes, type, op, root));
    meeting.show(bytes_at(from, bytes), bytes, [&](auto offset, auto part, const auto& shown) {
      if (meeting.rank() == root) combine(shown, meeting.ranks(), type, op, byte_at(to, offset), part);
    });
  });
}

ncclResult_t ncclReduceScatter(const void* from, void* to, std::size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  const std::size_t bytes = count * width_of(type);
  return submit_collective("ncclReduceScatter", to, comm, stream, [=](Meeting& meeting) {
    meeting.agree(call_of("ReduceScatter", bytes, type, op));
    for (int owner = 0; owner < meeting.ranks(); ++owner) {
      const auto* part_of_owner =
          static_cast<const std::byte*>(from) + bytes * static_cast<std::size_t>(owner);
      meeting.show({part_of_owner, bytes}, bytes, [&](auto offset, auto part, const auto& shown) {
        if (meeting.rank() == owner) combine(shown, meeting.ranks(), type, op, byte_at(to, offset), part);
      });
    }
  });
}

ncclResult_t ncclAllGather(const void* from, void* to, std::size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  const std::size_t bytes = count * width_of(type);
  return submit_collective("ncclAllGather", to, comm, stream, [=](Meeting& meeting) {
    meeting.agree(call_of("AllGather", bytes, type));
    meeting.show(bytes_at(from, bytes), bytes, [&](auto offset, auto part, const auto& shown) {
      for (std::size_t r = 0; r < static_cast<std::size_t>(meeting.ranks()); ++r)
        std::memcpy(byte_at(to, r * bytes + offset), shown[r], part);
    });
  });
}

ncclResult_t ncclBroadcast(const void* from, void* to, std::size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  const std::size_t bytes = count * width_of(type);
  return submit_collective("ncclBroadcast", to, comm, stream, [=](Meeting& meeting) {
    meeting.agree(call_of("Broadcast", bytes, type, 0, root));
    const auto mine = meeting.rank() == root ? bytes_at(from, bytes) : std::span<const std::byte>{};
    meeting.show(mine, bytes, [&](auto offset, auto part, const auto& shown) {
      std::memcpy(byte_at(to, offset), shown[static_cast<std::size_t>(root)], part);
    });
  });
}

ncclResult_t ncclSend(const void* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return submit_message("ncclSend", true, const_cast<void*>(data), count * width_of(type), peer, comm,
                        stream);
}

ncclResult_t ncclRecv(void* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return submit_message("ncclRecv", false, data, count * width_of(type), peer, comm, stream);
}

}  // extern "C"
