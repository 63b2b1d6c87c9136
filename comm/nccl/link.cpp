#include "comm/nccl/link.hpp"

#include <chrono>
#include <thread>
#include <utility>

#include "comm/nccl/check.hpp"
#include "core/error.hpp"
#include "core/stream.hpp"

namespace muster {
namespace {

// A thread of NCCL's launches each group, in some tens of microseconds: less than a sleep takes.
constexpr double patience = 200e-6;
constexpr std::chrono::microseconds between_looks{50};

// NCCL's groups belong to a thread; one that is left open would swallow its later calls.
class Group {
 public:
  Group() { check_nccl(ncclGroupStart(), "ncclGroupStart"); }
  ~Group() {
    if (open_) ncclGroupEnd();
  }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;
  void end(ncclComm_t comm) {
    open_ = false;
    check_nccl(ncclGroupEnd(), "ncclGroupEnd", comm);
  }

 private:
  bool open_ = true;
};

}  // namespace

NcclLink::NcclLink(const ncclUniqueId& id, int ranks, int rank, double deadline) : deadline_(deadline) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  check_nccl(ncclCommInitRankConfig(&comm_, ranks, id, rank, &config), "ncclCommInitRankConfig");
  settle("the start of NCCL");
}

NcclLink::~NcclLink() {
  if (comm_ != nullptr) ncclCommAbort(comm_);
}

void NcclLink::group(const std::string& what, const std::function<void(ncclComm_t)>& body) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) std::rethrow_exception(failure_);
    Group calls;
    body(comm_);
    calls.end(comm_);
  }
  // A first message between two ranks makes their connection, and only then is on the stream.
  settle(what);
}

void NcclLink::look() {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock) return;  // whoever calls NCCL now will see for itself
  state();
}

void NcclLink::expect_sound() {
  const std::lock_guard lock(mutex_);
  if (failure_) std::rethrow_exception(failure_);
}

ncclResult_t NcclLink::state() const {
  if (failure_) std::rethrow_exception(failure_);
  if (comm_ == nullptr) return ncclSuccess;
  ncclResult_t result = ncclSuccess;
  check_nccl(ncclCommGetAsyncError(comm_, &result), "ncclCommGetAsyncError", comm_);
  check_nccl(result, "NCCL", comm_);
  return result;
}

void NcclLink::settle(const std::string& what) {
  const auto settled = [&] {
    const std::lock_guard lock(mutex_);
    return state() != ncclInProgress;
  };
  try {
    const double start = steady_seconds();
    while (!settled()) {
      const double waited = steady_seconds() - start;
      if (waited >= deadline_)
        throw PeerError(fmt::format("not all ranks have come to {} in {:.0f} s", what, deadline_));
      if (waited < patience)
        std::this_thread::yield();
      else
        std::this_thread::sleep_for(between_looks);
    }
  } catch (...) {
    give_up(std::current_exception());
    throw;
  }
}

void NcclLink::give_up(std::exception_ptr failure) {
  const std::lock_guard lock(mutex_);
  if (comm_ == nullptr) return;
  failure_ = std::move(failure);
  ncclCommAbort(std::exchange(comm_, nullptr));  // not checked: it follows a failure
}

void NcclLink::close(bool quiet) {
  if (!quiet)
    return give_up(
        std::make_exception_ptr(PeerError("the communicator was closed before its collectives ended")));
  {
    const std::lock_guard lock(mutex_);
    if (comm_ == nullptr) return;
    check_nccl(ncclCommFinalize(comm_), "ncclCommFinalize", comm_);
  }
  settle("the end of NCCL");
  const std::lock_guard lock(mutex_);
  check_nccl(ncclCommDestroy(std::exchange(comm_, nullptr)), "ncclCommDestroy");
}

}  // namespace muster
