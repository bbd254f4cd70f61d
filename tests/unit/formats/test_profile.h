// Profiles to test formats with, and a readable text to compare them by.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "userspace/profile/profile.h"

namespace pyrometer::formats {

// Two containers and the host, kernel, library, JIT, inlined and unsymbolized frames, two values.
profile::Profile ShopProfile();

// A random profile that `pprof` can hold fully: kinds follow from mappings, no miss reasons.
profile::Profile RandomProfile(std::mt19937_64& random);

struct DescribeOptions {
  bool places = true;  // kinds, mappings, addresses, lines; false: names only
  bool miss = true;    // miss reasons
};
// Header, then one line per sample, sorted: "{labels} root;…;leaf 1 2". Ids do not show: equal text
// means equal content.
std::string Describe(const profile::Profile& profile, const DescribeOptions& options = {});

// A frame with one line; `module` may be "".
profile::FrameId AddFrame(profile::Profile* profile, std::string_view name, profile::FrameKind kind,
                          std::string_view module = {}, uint64_t address = 0, std::string_view file = {},
                          int64_t line = 0);
profile::LabelSetId AddLabels(profile::Profile* profile, std::vector<profile::Label> labels);

std::string ReadGolden(const std::string& name);
std::string GoldenPath(const std::string& name);

}  // namespace pyrometer::formats
