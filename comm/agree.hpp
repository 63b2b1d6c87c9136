// Agreement: work that may fail on some ranks only, and ends the same way on all of them.
//
// A fault that one rank sees (a missing file, a full disk) must end every rank with the same error, printed
// once, instead of leaving the others in their next collective.
#pragma once

#include <exception>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "comm/communicator.hpp"
#include "core/error.hpp"

namespace muster {

// What all errors thrown by agree() also are.
class Agreed {
 public:
  explicit Agreed(bool mine) : mine_(mine) {}
  virtual ~Agreed() = default;
  // This rank is the one that prints the error: the lowest of those that failed.
  bool mine() const { return mine_; }

 private:
  bool mine_;
};

// An error of the kind that the failing rank threw, with its message.
template <class Kind>
class AgreedAs final : public Kind, public Agreed {
 public:
  AgreedAs(const std::string& message, bool mine) : Kind(message), Agreed(mine) {}
};
using AgreedError = AgreedAs<UserError>;

// Whether this rank prints the error: all errors but those which another rank prints.
bool is_printed_here(const std::exception& error);

// Collective. Throws on every rank what the lowest rank with a failure brings; returns if none does.
// What is neither UserError nor PeerError becomes a Defect.
void agree_on(Communicator& comm, const std::string& what, const std::exception_ptr& failure);

// Runs fn on every rank and returns its result, unless any rank threw: then every rank throws the error of
// the lowest one that did.
template <class Fn>
std::invoke_result_t<Fn> agree(Communicator& comm, const std::string& what, Fn&& fn) {
  std::exception_ptr failure;
  const auto attempt = [&](auto&& work) {
    try {
      const Pulse::Work told = comm.pulse().work(what);
      work();
    } catch (...) {
      failure = std::current_exception();
    }
    agree_on(comm, what, failure);
  };
  if constexpr (std::is_void_v<std::invoke_result_t<Fn>>) {
    attempt(std::forward<Fn>(fn));
  } else {
    std::optional<std::invoke_result_t<Fn>> result;
    attempt([&] { result.emplace(std::forward<Fn>(fn)()); });
    return std::move(*result);
  }
}

// Collective: the least that any rank gives.
double least_of_ranks(Communicator& comm, double value, const std::string& what);
// Collective: the mean of what the ranks give.
double mean_of_ranks(Communicator& comm, double value, const std::string& what);

}  // namespace muster
