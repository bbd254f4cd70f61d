// An HTTP client for tests; keeps the large header of cpp-httplib in one file.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "nlohmann/json.hpp"

namespace pyrometer::server {

struct TestReply {
  int status = 0;  // 0 = no reply at all
  std::string body;
  std::multimap<std::string, std::string> headers;  // names in lower case

  std::string Header(const std::string& lower_case_name) const {
    const auto found = headers.find(lower_case_name);
    return found == headers.end() ? "" : found->second;
  }
  // Null when the body is no JSON.
  nlohmann::json Json() const { return nlohmann::json::parse(body, nullptr, false); }
};

struct TestRequest {
  std::string method = "GET";
  std::string path;  // with parameters, encoded
  std::string body;
  std::multimap<std::string, std::string> headers;
  std::string ca_file;  // not empty: HTTPS
};

TestReply Ask(uint16_t port, const TestRequest& request);
// Sends `bytes` as they are and reads until the end.
std::string AskRaw(uint16_t port, const std::string& bytes);
// Percent-encodes a parameter's value.
std::string Encode(const std::string& text);

}  // namespace pyrometer::server
