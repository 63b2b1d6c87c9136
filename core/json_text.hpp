// JSON as text, before a parser sees it: how deeply it nests, and a seal that tells whether it is what was written.
#pragma once

#include <string>
#include <string_view>

namespace muster {

// Whether arrays and objects lie more than `most` deep in each other. Trees of JSON are copied, printed and destroyed
// by recursion, so what comes from outside is asked this first.
bool nests_deeper_than(std::string_view json, int most);
inline constexpr int most_json_depth = 64;  // what this program writes needs a handful

// `body` is an object without its closing brace; its last member becomes "xxh3", the hash of all before it.
std::string sealed(std::string_view body);

enum class Seal { holds, broken, missing };
Seal seal_of(std::string_view whole);

}  // namespace muster
