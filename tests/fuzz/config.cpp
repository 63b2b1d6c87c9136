// A configuration in TOML. What is accepted must come back from the resolved configuration as it is.
#include "trainer/config/config.hpp"

#include "tests/fuzz/target.hpp"
#include "trainer/config/read.hpp"

void muster::fuzz::read(std::string_view bytes) {
  Config config = parse_config(bytes, "input.toml");
  resolve(config);
  check_relations(config);
  for_ranks(config, 3);
  const Config again = parse_resolved_config(to_toml(config), "config.toml");
  check(changed_keys(config, again).empty(), "a configuration changes when it is written and read");
}
