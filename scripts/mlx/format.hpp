// std::format for compilers without <format> (gcc 12): just what mlx-c uses of it, "{}" with text and numbers.
#pragma once
#include <sstream>
#include <string>
#include <string_view>

namespace std {

inline string format(string_view pattern) {
  return string(pattern);
}

template <typename First, typename... Rest>
string format(string_view pattern, const First& first, const Rest&... rest) {
  const auto hole = pattern.find("{}");
  if (hole == string_view::npos) {
    return string(pattern);
  }
  ostringstream out;
  out << pattern.substr(0, hole) << first;
  return out.str() + format(pattern.substr(hole + 2), rest...);
}

} // namespace std
