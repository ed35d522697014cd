window.__THAR_CONFIG = {
  "userInfo" : {
    "accountId" : "1000000001",
    "userName" : "ada_example",
    "displayName" : "Ada"
  },
  "archiveInfo" : {
    "sizeBytes" : "123456",
    "generationDate" : "2023-01-15T08:45:27.014Z",
    "isPartialArchive" : false,
    "maxPartSizeBytes" : "53687091200"
  }
}
