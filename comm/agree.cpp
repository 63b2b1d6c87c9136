#include "comm/agree.hpp"

#include <cstddef>
#include <vector>

namespace muster {
namespace {

// How a failure travels: a letter for its kind, then its message. No failure is the empty string.
constexpr char user_error = 'u', peer_error = 'p', defect = 'd';

std::string packed(const std::exception_ptr& failure) {
  if (!failure) return {};
  try {
    std::rethrow_exception(failure);
  } catch (const UserError& error) {
    return user_error + std::string(error.what());
  } catch (const PeerError& error) {
    return peer_error + std::string(error.what());
  } catch (const std::exception& error) {
    return defect + std::string(error.what());
  } catch (...) {
    return defect + std::string("an exception of unknown type");
  }
}

}  // namespace

bool is_printed_here(const std::exception& error) {
  const auto* agreed = dynamic_cast<const Agreed*>(&error);
  return agreed == nullptr || agreed->mine();
}

void agree_on(Communicator& comm, const std::string& what, const std::exception_ptr& failure) {
  const std::vector<std::string> failures = gather_strings(comm, packed(failure), what);
  for (std::size_t rank = 0; rank < failures.size(); ++rank) {
    if (failures[rank].empty()) continue;
    const std::string message = failures[rank].substr(1);
    const bool mine = static_cast<int>(rank) == comm.rank();
    switch (failures[rank][0]) {
      case user_error:
        throw AgreedAs<UserError>(message, mine);
      case peer_error:
        throw AgreedAs<PeerError>(message, mine);
      default:
        throw AgreedAs<Defect>(message, mine);
    }
  }
}

double least_of_ranks(Communicator& comm, double value, const std::string& what) {
  double negated = -value;
  comm.all_reduce(std::as_writable_bytes(std::span(&negated, 1)), ReduceType::f64, ReduceOp::max, what)
      .wait();
  return -negated;
}

double mean_of_ranks(Communicator& comm, double value, const std::string& what) {
  comm.all_reduce(std::as_writable_bytes(std::span(&value, 1)), ReduceType::f64, ReduceOp::sum, what).wait();
  return value / comm.size();
}

}  // namespace muster
