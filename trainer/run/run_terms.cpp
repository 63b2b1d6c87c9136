#include "trainer/run/run_terms.hpp"

#include <string>
#include <utility>

#include "trainer/config/read.hpp"
#include "trainer/run/fitting_plan.hpp"
#include "trainer/run/ranks_alike.hpp"

namespace muster {

RunTerms agree_on_terms(const Config& told, const RunData& data, const RunHost& host) {
  Communicator& comm = host.ranks.host;
  Config config = for_ranks(told, comm.size());
  const std::uint64_t runtime_bytes = host.machine.device().held_bytes();
  const std::string fingerprint = agree_on_fingerprint(comm, config, host.machine);
  RunPlan plan = fitting_plan(told, host.ranks, host.machine, data.memory(config));
  refuse_unlike_ranks(comm, config, data);
  RunState state{{}, to_toml(told), data.info().tokenizer, fingerprint, data.identities(config)};
  return {told, std::move(config), runtime_bytes, std::move(plan), std::move(state)};
}

}  // namespace muster
