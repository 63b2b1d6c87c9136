// The text of one line of JSON, RFC 8259, read without a tree of the other fields.
//
// What other fields hold does not matter as long as the line can be read: a number may be of any size, and NaN,
// Infinity and -Infinity, which Python's json writes, are numbers. Of two fields "text" the last counts. In the text
// half of a surrogate pair becomes U+FFFD, and bytes that are no UTF-8 are a fault. A byte order mark before the line
// is passed over.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace muster {

// Sets `text` to the field "text" of the object that the line is. Otherwise tells the fault, as what comes after the
// name of the line: `has no field "text"`.
std::optional<std::string> text_of_json(std::string_view line, std::string& text);

// The whole object at the start of `text`, which may go on behind it; empty if there is none.
std::string_view object_at_start(std::string_view text);

}  // namespace muster
